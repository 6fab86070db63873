"""What only an approver may do."""

from __future__ import annotations

from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.time_gates import ignores_freezes
from rollwave.domain.role import Role
from rollwave.errors import Forbidden


def require_approver(document: PolicyDocument | None, role: Role) -> None:
    """Check that a campaign under this document may run on the order of a key with this role.

    Raises:
        Forbidden: the document ignores freezes, and the role is no approver.
    """
    if ignores_freezes(document) and not role.covers(Role.APPROVER):
        raise Forbidden(
            f"Requires role {Role.APPROVER}: the policy ignores freezes. This key has role {role}.",
            hint="Let an approver do it, or set schedule.ignore_freezes to false.",
        )
