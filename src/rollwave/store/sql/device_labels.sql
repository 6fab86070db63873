-- name: labels
-- The labels and versions of these devices ($2).
SELECT device_id, device_type, time_zone, version, labels::text AS labels
FROM rollwave_labels_of($1::text, $2::text[]);

-- name: host_labels
-- The same, of a host's view of its devices.
SELECT device_id, device_type, time_zone, version, labels::text AS labels
FROM rollwave_host_labels_of($1::text, $2::text[]);
