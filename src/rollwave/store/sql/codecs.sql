-- name: echo
SELECT $1::text, $2::text[], $3::varchar, $4::boolean, $5::int, $6::bigint, $7::float8;
