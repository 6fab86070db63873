"""What the author of a policy is told when it is saved: warnings, and when its windows open next."""

from __future__ import annotations

from rollwave.domain.policy.advice import Advice, advice
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.store import campaigns, moments
from rollwave.store.database import Pool, tenant_transaction


async def on_document(pool: Pool, tenant_id: str, document: PolicyDocument) -> Advice:
    """What is told about a document, by the database's clock."""
    async with tenant_transaction(pool, tenant_id) as connection:
        return advice(document, await moments.now(connection))


async def on_campaign(pool: Pool, tenant_id: str, campaign_id: int) -> Advice:
    """What is told about the document that a campaign follows. Empty: it follows its flat columns.

    Raises:
        NotFound: the tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        document = (await campaigns.get(connection, tenant_id, campaign_id)).document
        return Advice((), ()) if document is None else advice(document, await moments.now(connection))
