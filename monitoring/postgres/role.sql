-- The exporter's role: it can read all statistics, but no rows.
-- MONITOR_PASSWORD=… psql -U postgres -f monitoring/postgres/role.sql

\set ON_ERROR_STOP on
\getenv password MONITOR_PASSWORD
select 'create role monitor login' where not exists (select from pg_roles where rolname = 'monitor') \gexec
grant pg_monitor to monitor;
alter role monitor connection limit 5 password :'password';
