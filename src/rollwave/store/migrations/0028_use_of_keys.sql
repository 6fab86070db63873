-- When an API key was used last. Written at most once an hour.
ALTER TABLE rollwave_api_keys ADD COLUMN IF NOT EXISTS last_used_at timestamptz;
