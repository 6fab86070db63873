-- name: roles
SELECT rolname::text FROM pg_roles WHERE rolname IN ('pulse_app', 'rollwave_due');

-- name: memberships
-- Roles that this login cannot take with SET ROLE, but may grant to itself. PostgreSQL 15 has no right SET.
SELECT r.rolname::text
FROM pg_roles r
WHERE r.rolname IN ('pulse_app', 'rollwave_due')
  AND NOT (SELECT me.rolsuper FROM pg_roles me WHERE me.rolname = current_user)
  AND NOT pg_has_role(current_user, r.oid, CASE WHEN current_setting('server_version_num')::int >= 160000
                                                THEN 'SET' ELSE 'MEMBER' END);

-- name: schema
SELECT quote_ident(current_schema()) AS name, array_agg(r.rolname::text) FILTER (
           WHERE has_schema_privilege(r.oid, current_schema()::regnamespace, 'USAGE')) AS may_use
FROM pg_roles r WHERE r.rolname IN ('pulse_app', 'rollwave_due');

-- name: tables
-- The tables of $1 that exist.
SELECT c.relname::text AS name, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
       EXISTS (SELECT FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped) AS of_tenants,
       h.table_name IS NOT NULL AS adopted,
       COALESCE(h.had_row_security OR NOT c.relforcerowsecurity AND EXISTS (
           SELECT FROM pg_policy p
           WHERE p.polrelid = c.oid AND p.polpermissive AND p.polname !~ '^rollwave_'
             AND p.polname <> ALL (h.unused_policies)), false) AS had_row_security,
       COALESCE(h.host_gave, false) AS host_gave,
       ARRAY(SELECT t.tgname::text FROM pg_trigger t
             WHERE t.tgrelid = c.oid AND t.tgname ~ '^rollwave_' AND t.tgenabled <> 'D') AS triggers
FROM pg_class c
LEFT JOIN rollwave_adopted_tables h ON h.table_name = c.relname
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND c.relname = ANY ($1::text[])
ORDER BY c.relname;

-- name: grants
-- The grants on the tables of $1, on single columns of them, and on the sequences of their ids; and whether default privileges
-- grant the same to the same role. Rights of an owner are left out, unless the owner is pulse_app.
WITH named AS (
    SELECT c.oid, c.relname::text AS of_table
    FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND c.relname = ANY ($1::text[])
), object AS (
    SELECT n.of_table, NULL::text AS sequence, NULL::text AS "column", c.relowner AS owner, c.relacl AS acl, 'r' AS kind
    FROM named n JOIN pg_class c ON c.oid = n.oid
    UNION ALL
    SELECT n.of_table, NULL, a.attname::text, c.relowner, a.attacl, 'r'
    FROM named n JOIN pg_class c ON c.oid = n.oid
    JOIN pg_attribute a ON a.attrelid = n.oid AND NOT a.attisdropped AND a.attacl IS NOT NULL
    UNION ALL
    SELECT DISTINCT n.of_table, quote_ident(s.relname), NULL, s.relowner, s.relacl, 'S'
    FROM named n
    JOIN pg_attrdef f ON f.adrelid = n.oid
    JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = f.oid AND p.refclassid = 'pg_class'::regclass
    JOIN pg_class s ON s.oid = p.refobjid AND s.relkind = 'S'
)
SELECT o.of_table, o.sequence, o."column", x.grantee, x.privilege_type AS privilege, x.role = o.owner AS of_owner,
       EXISTS (SELECT FROM pg_default_acl d, aclexplode(d.defaclacl) AS given
               WHERE d.defaclobjtype = o.kind AND d.defaclrole = o.owner
                 AND d.defaclnamespace IN (0, current_schema()::regnamespace)
                 AND given.grantee = x.role AND given.privilege_type = x.privilege_type) AS by_default
FROM object o
LEFT JOIN LATERAL (
    SELECT e.grantee AS role, e.privilege_type,
           CASE WHEN e.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(e.grantee)) END AS grantee
    FROM aclexplode(COALESCE(o.acl, CASE WHEN o."column" IS NULL THEN acldefault(lower(o.kind)::"char", o.owner) END)) AS e
    WHERE e.grantee <> o.owner OR pg_get_userbyid(o.owner) = 'pulse_app'
) AS x ON true
ORDER BY o.of_table, o.sequence, x.grantee, x.privilege_type, o."column";

-- name: policies
-- Rollwave's policies on the tables of $1. All roles of a policy are listed, since a policy for several roles is wrong too.
SELECT c.relname::text AS of_table, p.polname::text AS name,
       CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
                     ELSE 'ALL' END AS command,
       (SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
        FROM unnest(p.polroles) AS r) AS role,
       p.polpermissive AS permissive, pg_get_expr(p.polqual, p.polrelid) AS "using",
       pg_get_expr(p.polwithcheck, p.polrelid) AS "check"
FROM pg_policy p
JOIN pg_class c ON c.oid = p.polrelid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY ($1::text[]) AND p.polname ~ '^rollwave_';

-- name: functions
-- The functions of $1 that exist, and the roles that may call them, without the owner. Without an ACL, PUBLIC may.
SELECT p.proname::text AS name, p.oid::regprocedure::text AS signature,
       pg_get_userbyid(p.proowner) = 'rollwave_due' AS right_owner, p.prosecdef AS definer,
       ARRAY(SELECT CASE WHEN e.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(e.grantee)) END
             FROM aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) AS e
             WHERE e.grantee <> p.proowner) AS grantees
FROM pg_proc p
WHERE p.pronamespace = current_schema()::regnamespace AND p.proname = ANY ($1::text[])
ORDER BY p.proname;

-- name: may_create
-- The schema that is migrated, and whether this login may create objects there and grant that right to both roles.
SELECT quote_ident(n.nspname) AS schema, pg_get_userbyid(n.nspowner)::text AS owner, quote_ident(current_user) AS login,
       has_schema_privilege(n.oid, 'USAGE WITH GRANT OPTION')
           AND has_schema_privilege(n.oid, 'CREATE WITH GRANT OPTION') AS allowed
FROM unnest(string_to_array(current_setting('search_path'), ',')) WITH ORDINALITY AS s (name, place)
JOIN pg_namespace n ON n.nspname = replace(btrim(s.name, ' "'), '$user', current_user)
ORDER BY COALESCE(n.nspname = current_schema(), false) DESC, s.place
LIMIT 1;
