-- name: field
-- All devices of a campaign in dispatch order, a digit each: by wave and place in the queue, those without a place last, then by
-- the order in which they were targeted. read_at: in microseconds since 1970.
-- generation: of the devices and their places. A device keeps its place when it is sent to.
SELECT (EXTRACT(epoch FROM statement_timestamp()) * 1000000)::bigint AS read_at, count(*)::int AS devices,
       COALESCE(bit_xor(place), 0) AS generation, COALESCE(string_agg(state, ''), '') AS states
FROM (
    SELECT hashint8extended(id::bigint, position) AS place,
           CASE status WHEN 'PENDING' THEN '0' WHEN 'DOWNLOADING' THEN '1' WHEN 'INSTALLING' THEN '2' WHEN 'SUCCESS' THEN '3'
                       WHEN 'FAILED' THEN '4' ELSE '5' END AS state
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2::bigint
    ORDER BY NULLIF(position, 0), id
) AS placed;

-- name: device
-- The device at the index $3 in that order, from 0.
SELECT device_id, status
FROM ota_device_status
WHERE tenant_id = $1 AND campaign_id = $2::bigint
ORDER BY NULLIF(position, 0), id
OFFSET $3 LIMIT 1;
