-- The versions that a sample of a campaign's devices ran when it was first sent, as {"devices": 500, "versions": [["2.3.0", 450], ...]}, the most
-- common first. NULL: not looked at yet. Nobody can find them later: a device says which version it runs now.
ALTER TABLE ota_campaigns ADD COLUMN IF NOT EXISTS from_versions jsonb;
