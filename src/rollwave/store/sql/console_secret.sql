-- name: read
SELECT secret FROM rollwave_console_secret;
