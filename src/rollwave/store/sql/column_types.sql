-- name: of_another_type
-- The first of the columns $2 of the tables $1 that has another type than $3 says.
SELECT c.relname::text AS of_table, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type, wanted.type AS wanted
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS wanted (of_table, name, type, number)
JOIN pg_class c ON c.relname = wanted.of_table AND c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = wanted.name AND NOT a.attisdropped
WHERE a.atttypid <> wanted.type::regtype
ORDER BY wanted.number
LIMIT 1;
