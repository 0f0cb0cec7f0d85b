//! Privileges of the roles: the role for requests on tables, sequences and functions, including the service's own, and the
//! migrating role on the schema.

use tokio_postgres::{Client, Error};

use super::query::{one, quoted};
use super::report::Report;
use crate::db::{migrate, roles};
use crate::resource::registry::Resources;

const AREA: &str = "database";

/// Schemas that contain this service's tables, and whether the current role may use them.
const SCHEMAS: &str = "select n.nspname::text, has_schema_privilege(n.oid, 'usage'), current_setting('search_path') \
     from pg_class c join pg_namespace n on n.oid = c.relnamespace \
     where c.relname = 'refinery_schema_history' and c.relkind = 'r' order by 1";

/// Whether the role for requests can see the tables: if it may not use their schema, PostgreSQL reports that they do not exist.
///
/// # Errors
/// If the connection is lost.
pub async fn finds_tables(report: &mut Report, client: &Client) -> Result<bool, Error> {
    if one(client, migrate::HAS_VERSION).await? {
        return Ok(true);
    }
    let rows = client.query(SCHEMAS, &[]).await?;
    let role: String = one(client, "select current_user::text").await?;
    for row in &rows {
        let (schema, may_use, path): (String, bool, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (schema, role_name) = (quoted(&schema), quoted(&role));
        if may_use {
            let base = quoted(&one::<String>(client, "select current_database()::text").await?);
            let what = format!("the tables are in the schema {schema}, which is not in search_path = {path} of {role}");
            report.wrong(AREA, what, format!("alter role {role_name} in database {base} set search_path = {schema};"));
        } else {
            let what = format!("{role} lacks usage on the schema {schema} and cannot see its tables");
            report.wrong(AREA, what, format!("grant usage on schema {schema} to {role_name};"));
        }
    }
    Ok(rows.is_empty())
}

/// Missing privileges of the role for requests: the kind of the object, its name in SQL, and the privileges. The `case`
/// prevents PostgreSQL from checking the privilege on an object that is not a sequence, which would be an error.
const LACKING: &str = "with objects as (select unnest(string_to_array($1, ',')) as name), \
     ours as (select c.oid, c.relname::text as name, c.relkind from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = current_schema()) \
     select 'table', o.oid::regclass::text, string_agg(privilege, ', ' order by place) \
         from ours o, unnest(array['select', 'insert', 'update', 'delete']) with ordinality as needed (privilege, place) \
         where o.relkind in ('r', 'p') and o.name in (select name from objects) \
         and (o.name <> 'refinery_schema_history' or privilege = 'select') and not has_table_privilege(o.oid, privilege) \
         group by o.oid \
     union all select 'sequence', o.oid::regclass::text, 'usage' from ours o \
         where case when o.relkind = 'S' then not has_sequence_privilege(o.oid, 'usage, update') end \
         and (o.name in (select name from objects) \
             or exists (select from pg_depend d join ours t on t.oid = d.refobjid where d.objid = o.oid \
                 and d.deptype = 'a' and t.name in (select name from objects))) \
     union all select 'function', p.oid::regprocedure::text, 'execute' from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
         where n.nspname = current_schema() and p.proname in (select name from objects) \
         and p.prorettype <> 'trigger'::regtype and not has_function_privilege(p.oid, 'execute') \
     order by 1 desc, 2";

/// Tables with rows that a policy may hide from this role.
const HIDDEN: &str = "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
     where n.nspname = current_schema() and c.relkind in ('r', 'p') and c.relname in (select unnest(string_to_array($1, ','))) \
     and row_security_active(c.oid) order by 1";

/// Checks the privileges of the role for requests.
///
/// # Errors
/// If the connection is lost.
pub async fn of_requests(report: &mut Report, client: &Client, resources: Resources) -> Result<(), Error> {
    let objects = migrate::objects(&resources);
    let role: String = one(client, "select current_user::text").await?;
    let name = quoted(&role);
    let lacking = client.query(LACKING, &[&objects]).await?;
    for row in &lacking {
        let (kind, object, privileges): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        // For a table, `grant` does not require the kind.
        let on = if kind == "table" { object.clone() } else { format!("{kind} {object}") };
        let remedy = format!("pycrudapi migrate as the owner, or: grant {privileges} on {on} to {name};");
        report.wrong(AREA, format!("{role} lacks {privileges} on the {kind} {object}"), remedy);
    }
    let hidden = client.query(HIDDEN, &[&objects]).await?;
    for row in &hidden {
        let table: String = row.try_get(0)?;
        let what = format!("row-level security hides rows of {table} from {role}, and rejects new ones");
        report.wrong(AREA, what, format!("alter table {table} disable row level security;"));
    }
    if lacking.is_empty() && hidden.is_empty() {
        report.fine(AREA, format!("{role} can read and change every table, and use its sequences and functions"));
    }
    Ok(())
}

/// Tables with a different owner.
const FOREIGN: &str = "select string_agg(c.oid::regclass::text, ', ' order by c.relname), pg_get_userbyid(c.relowner)::text \
     from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = current_schema() \
     and c.relkind in ('r', 'p') and c.relname in (select unnest(string_to_array($1, ','))) \
     and not pg_has_role(current_user, c.relowner, 'usage') group by c.relowner order by 2";

/// Checks the migrating role, if the schema must be migrated.
///
/// # Errors
/// If the connection is lost.
pub async fn of_migrator(report: &mut Report, client: &Client, resources: Resources) -> Result<(), Error> {
    if roles::is_superuser(client).await? {
        return Ok(());
    }
    let role: String = one(client, "select current_user::text").await?;
    let name = quoted(&role);
    let schema: Option<String> = one(client, "select current_schema()::text").await?;
    let schema = schema.as_deref().map_or("public".to_owned(), quoted);
    if !one::<bool>(client, "select coalesce(has_schema_privilege(current_schema(), 'create'), false)").await? {
        let what = format!("{role} lacks create on the schema {schema}, which migrations require");
        let remedy =
            format!("grant usage, create on schema {schema} to {name}; or set MIGRATE_USER to an administrator");
        report.wrong(AREA, what, remedy);
    }
    for row in client.query(FOREIGN, &[&migrate::objects(&resources)]).await? {
        let (tables, owner): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let remedy = format!("MIGRATE_USER={owner}, or: grant {} to {name};", quoted(&owner));
        report.wrong(AREA, format!("{role} migrates, but does not own {tables}: their owner is {owner}"), remedy);
    }
    Ok(())
}
