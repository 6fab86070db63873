"""placeholder"""


def page(api: object, campaign_id: int) -> str:
    """The page."""
    raise NotImplementedError
