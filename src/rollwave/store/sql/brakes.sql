-- Each change of a brake writes its audit row, and wakes the workers at the commit: they look at every campaign of the tenant.

-- name: halt_of
SELECT EXTRACT(epoch FROM starts_at)::float8 AS since, created_by AS by, reason,
       (SELECT NULLIF(k.name, '') FROM rollwave_api_keys k WHERE k.tenant_id = $1 AND k.key_id = rollwave_brakes.created_by) AS by_name
FROM rollwave_brakes WHERE tenant_id = $1 AND kind = 'halt' AND name = $2;

-- name: standing
-- The halt and the freezes that are not over, as campaigns.get has them.
SELECT jsonb_agg(jsonb_build_array(kind, name, EXTRACT(epoch FROM starts_at), EXTRACT(epoch FROM ends_at), created_by, reason)
                 ORDER BY kind DESC, starts_at, name)::text
FROM rollwave_brakes
WHERE tenant_id = $1 AND (ends_at IS NULL OR ends_at > statement_timestamp());

-- name: halt
-- Not applied: the tenant is halted already.
WITH placed AS (
    INSERT INTO rollwave_brakes (tenant_id, kind, name, created_by, reason) VALUES ($1, 'halt', $2, $3, $4)
    ON CONFLICT DO NOTHING
    RETURNING kind, name, reason, starts_at
), written AS (
    INSERT INTO rollwave_brake_history (tenant_id, kind, name, change, actor, reason, starts_at)
    SELECT $1, kind, name, 'set', $3, reason, starts_at FROM placed
)
SELECT pg_notify('rollwave_due', $1) FROM placed;

-- name: halt_tenants
-- As halt, for tenants ($1, sorted: two such statements must not wait for each other). Needs a login that bypasses row-level security.
WITH placed AS (
    INSERT INTO rollwave_brakes (tenant_id, kind, name, created_by, reason)
    SELECT tenant_id, 'halt', $2, $3, $4 FROM unnest($1::text[]) AS t (tenant_id)
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, kind, name, reason, starts_at
), written AS (
    INSERT INTO rollwave_brake_history (tenant_id, kind, name, change, actor, reason, starts_at)
    SELECT tenant_id, kind, name, 'set', $3, reason, starts_at FROM placed
)
SELECT count(pg_notify('rollwave_due', '')) FROM placed;

-- name: lift
-- Remove a brake. Not applied (0): there is none of this name.
WITH gone AS (
    DELETE FROM rollwave_brakes WHERE tenant_id = $1 AND kind = $2 AND name = $3
    RETURNING kind, name, starts_at, ends_at
), written AS (
    INSERT INTO rollwave_brake_history (tenant_id, kind, name, change, actor, reason, starts_at, ends_at)
    SELECT $1, kind, name, 'lifted', $4, $5, starts_at, LEAST(ends_at, statement_timestamp()) FROM gone
)
SELECT count(pg_notify('rollwave_due', $1)) FROM gone;

-- name: lift_tenants
-- As lift, for the halts of tenants ($1, sorted).
WITH gone AS (
    DELETE FROM rollwave_brakes WHERE tenant_id = ANY ($1::text[]) AND kind = 'halt' AND name = $2
    RETURNING tenant_id, kind, name, starts_at, ends_at
), written AS (
    INSERT INTO rollwave_brake_history (tenant_id, kind, name, change, actor, reason, starts_at, ends_at)
    SELECT tenant_id, kind, name, 'lifted', $3, $4, starts_at, statement_timestamp() FROM gone
)
SELECT count(pg_notify('rollwave_due', '')) FROM gone;

-- name: freezes
-- Ordered by name.
SELECT name, EXTRACT(epoch FROM starts_at)::float8 AS starts_at, EXTRACT(epoch FROM ends_at)::float8 AS ends_at, reason,
       EXTRACT(epoch FROM created_at)::float8 AS created_at, created_by,
       (SELECT NULLIF(k.name, '') FROM rollwave_api_keys k WHERE k.tenant_id = $1 AND k.key_id = rollwave_brakes.created_by) AS created_by_name,
       starts_at <= statement_timestamp() AND statement_timestamp() < ends_at AS in_force,
       ends_at <= statement_timestamp() AS is_over
FROM rollwave_brakes
WHERE tenant_id = $1 AND kind = 'freeze' AND ($2::text IS NULL OR name > $2)
ORDER BY name
LIMIT $3;

-- name: count_freezes
SELECT count(*) FROM rollwave_brakes WHERE tenant_id = $1 AND kind = 'freeze';

-- name: freezes_not_over
-- The number of freezes that are not over, and whether the time $2 is over.
SELECT count(*)::int AS not_over, to_timestamp($2) <= statement_timestamp() AS ended
FROM rollwave_brakes WHERE tenant_id = $1 AND kind = 'freeze' AND ends_at > statement_timestamp();

-- name: add_freeze
-- Not applied: there is a freeze of this name.
WITH placed AS (
    INSERT INTO rollwave_brakes (tenant_id, kind, name, starts_at, ends_at, created_by, reason)
    VALUES ($1, 'freeze', $2, to_timestamp($3), to_timestamp($4), $5, $6)
    ON CONFLICT DO NOTHING
    RETURNING *
), written AS (
    INSERT INTO rollwave_brake_history (tenant_id, kind, name, change, actor, reason, starts_at, ends_at)
    SELECT $1, kind, name, 'set', $5, reason, starts_at, ends_at FROM placed
)
SELECT name, EXTRACT(epoch FROM starts_at)::float8 AS starts_at, EXTRACT(epoch FROM ends_at)::float8 AS ends_at, reason,
       EXTRACT(epoch FROM created_at)::float8 AS created_at, created_by,
       (SELECT NULLIF(k.name, '') FROM rollwave_api_keys k WHERE k.tenant_id = $1 AND k.key_id = placed.created_by) AS created_by_name,
       starts_at <= statement_timestamp() AND statement_timestamp() < ends_at AS in_force,
       pg_notify('rollwave_due', $1)::text AS woken
FROM placed;

-- name: lifted_by
SELECT CASE change WHEN 'lifted' THEN actor END
FROM rollwave_brake_history
WHERE tenant_id = $1 AND kind = $2 AND name = $3
ORDER BY id DESC
LIMIT 1;

-- name: in_force
-- The halt and the freezes that stop sending now, the halt first, at most $2.
SELECT kind, name, reason, EXTRACT(epoch FROM starts_at)::float8 AS since_at, EXTRACT(epoch FROM ends_at)::float8 AS ends_at,
       created_by AS by, (SELECT NULLIF(k.name, '') FROM rollwave_api_keys k WHERE k.tenant_id = $1 AND k.key_id = created_by) AS by_name
FROM rollwave_brakes
WHERE tenant_id = $1 AND starts_at <= statement_timestamp() AND (ends_at IS NULL OR ends_at > statement_timestamp())
ORDER BY kind DESC, ends_at DESC, name
LIMIT $2;

-- name: name_of_key
SELECT name FROM rollwave_api_keys WHERE tenant_id = $1 AND key_id = $2;

-- name: changes
-- The last $2 changes of the tenant's brakes, newest first.
SELECT EXTRACT(epoch FROM h.at)::float8 AS at, h.kind, h.name, h.change, h.actor, h.reason,
       (SELECT NULLIF(k.name, '') FROM rollwave_api_keys k WHERE k.tenant_id = $1 AND k.key_id = h.actor) AS actor_name
FROM rollwave_brake_history h
WHERE h.tenant_id = $1
ORDER BY h.id DESC
LIMIT $2;

-- name: halted_tenants
SELECT rollwave_halted_tenants();

-- name: confined
-- Whether row-level security shows this login one tenant at a time.
SELECT row_security_active('tenants');

-- name: tenants
-- As far as row-level security shows them to this login.
SELECT DISTINCT tenant_id FROM tenants ORDER BY tenant_id;

-- name: reach
-- What a halt of the tenant stops: its running campaigns, their devices in progress, and the devices a minute that they may
-- send to. $2: seconds of a tick. unlimited: one of them has no such limit.
SELECT count(*)::int AS campaigns,
       COALESCE(sum(GREATEST(0, COALESCE(c.downloading, 0) + COALESCE(c.installing, 0))), 0)::int AS in_progress,
       COALESCE(sum(r.rate), 0)::float8 AS per_minute, COALESCE(bool_or(r.rate IS NULL), false) AS unlimited
FROM ota_campaigns c
LEFT JOIN ota_campaign_policies p ON p.tenant_id = $1 AND p.campaign_id = c.id AND p.revision = c.policy_revision
CROSS JOIN LATERAL (
    SELECT CASE WHEN c.policy_revision IS NULL THEN c.rollout_rate * 60 / $2::float8
                WHEN jsonb_typeof(p.document #> '{pace,per_minute}') = 'number'
                THEN (p.document #>> '{pace,per_minute}')::float8 END AS rate
) AS r
WHERE c.tenant_id = $1 AND c.status = 'RUNNING';
