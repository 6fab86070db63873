-- name: apply_reports
-- A function of the schema that does the same as executions.apply_reports.
SELECT was, became, attempt, patience AS progress_timeout
FROM rollwave_apply_reports($1, $2, $3, $4, $5, $6, $7, $8, $9)
ORDER BY number;

-- name: count
SELECT * FROM rollwave_count($1, $2, $3, $4, $5, $6, $7, $8);
