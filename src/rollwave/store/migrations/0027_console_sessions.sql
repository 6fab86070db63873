-- The console signs its session cookies with a secret that all processes share.

-- One row. A transaction of a tenant does not see it (its policy is in domain/row_security.py), so no statement about a tenant's rows can return it.
-- To end every session, the owner of the table changes the secret.
CREATE TABLE rollwave_console_secret (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    secret text NOT NULL CHECK (length(secret) >= 32),
    made_at timestamptz NOT NULL DEFAULT statement_timestamp()
);

-- gen_random_uuid() takes its 122 bits from the system's source of random numbers for cryptography.
INSERT INTO rollwave_console_secret (secret)
VALUES (replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));

ALTER TABLE rollwave_console_secret ENABLE ROW LEVEL SECURITY;
