//! The two PostgreSQL roles: one owns the tables and migrates them, the other serves requests.
//!
//! The role for requests can read and change rows, and nothing else: it cannot create, alter, drop or truncate a table, or
//! change the record of applied migrations. The migrating role ([`ConnInfo::migrator`]) creates the role for requests once, and
//! never changes the password of an existing one, because running servers use it. If the administrator is a superuser, a third
//! role, which cannot log in, is created as owner of the tables, so that no function of this program runs as superuser.

use postgres_protocol::password::scram_sha_256;
use tokio_postgres::{Client, Error};

use super::conninfo::ConnInfo;

/// The role for requests, unless the settings specify another.
pub const REQUESTS: &str = "pycrudapi";

/// The owner of the tables if a superuser migrates.
const OWNER: &str = "pycrudapi_owner";

/// Inputs of the statements below; a `do` block cannot have parameters.
const REQUESTS_ARE: &str =
    "select set_config('pycrudapi.requests', $1, false), set_config('pycrudapi.verifier', $2, false)";
const OWNER_IS: &str = "select set_config('pycrudapi.owner', $1, false), set_config('pycrudapi.objects', $2, false)";

/// Roles are shared by all databases of a server, so another database's migration may create them concurrently.
const MAKE: &str = "do $$
declare
    requests constant text := current_setting('pycrudapi.requests');
    verifier constant text := current_setting('pycrudapi.verifier');
begin
    begin
        if not exists (select from pg_roles where rolname = requests) then
            execute format('create role %I login', requests)
                || case when verifier <> '' then format(' password %L', verifier) else '' end;
        end if;
    exception
        when duplicate_object or unique_violation then null;
    end;
    if not has_schema_privilege(requests, current_schema(), 'usage') then
        execute format('grant usage on schema %I to %I', current_schema(), requests);
    end if;
end
$$";

/// Transfers this program's objects from a superuser to the owner role: those of releases without an owner role, and those that
/// a restore created as the superuser. No row is changed.
const MAKE_OWNER: &str = "do $$
declare
    owner constant text := current_setting('pycrudapi.owner');
    objects constant text[] := string_to_array(current_setting('pycrudapi.objects'), ',');
    place constant oid := (select oid from pg_namespace where nspname = current_schema());
    change text;
begin
    begin
        if not exists (select from pg_roles where rolname = owner) then
            execute format('create role %I nologin', owner);
        end if;
    exception
        when duplicate_object or unique_violation then null;
    end;
    -- To be allowed `create extension` (a trusted one) and tables; others need neither, nor temporary tables.
    execute format('grant create on database %I to %I', current_database(), owner);
    execute format('grant usage, create on schema %I to %I', current_schema(), owner);
    execute format('revoke create on schema %I from public', current_schema());
    execute format('revoke temporary on database %I from public', current_database());
    for change in
        select format('alter %s %s owner to %I', case relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass, owner)
        from pg_class c
        where relnamespace = place and relname = any (objects) and relkind in ('r', 'p', 'S')
            and relowner <> owner::regrole
            -- The sequence of a column follows its table.
            and not exists (select from pg_depend d where d.objid = c.oid and d.deptype in ('a', 'i') and relkind = 'S')
        union all
        select format('alter function %s owner to %I', p.oid::regprocedure, owner)
        from pg_proc p
        where pronamespace = place and proname = any (objects) and proowner <> owner::regrole
    loop
        execute change;
    end loop;
end
$$";

/// Grants for existing objects, and for those that later migrations create.
const GRANT: &str = "do $$
declare
    requests constant text := current_setting('pycrudapi.requests');
    place constant text := current_schema();
    grants text;
begin
    execute format('alter default privileges in schema %I grant select, insert, update, delete on tables to %I', place, requests);
    execute format('alter default privileges in schema %I grant usage on sequences to %I', place, requests);
    for grants in
        select format(
            case relkind when 'S' then 'grant usage on sequence %s to %I' else 'grant select, insert, update, delete on %s to %I' end,
            c.oid::regclass, requests)
        from pg_class c
        where relnamespace = (select oid from pg_namespace where nspname = place) and relkind in ('r', 'p', 'S')
            and relowner = current_user::regrole
    loop
        execute grants;
    end loop;
    -- Only the owner may change the record of applied migrations.
    execute format('revoke insert, update, delete on refinery_schema_history from %I', requests);
end
$$";

/// Creates the role for requests, unless it exists.
///
/// # Errors
/// If the role is missing and this session may not create it, or the connection is lost.
pub async fn create_request_role(client: &Client, requests: &ConnInfo) -> Result<(), Error> {
    let name = requests.config.get_user().unwrap_or(REQUESTS);
    // The verifier instead of the password, because the server might log the statement.
    let verifier = requests.config.get_password().map(scram_sha_256).unwrap_or_default();
    client.query(REQUESTS_ARE, &[&name, &verifier]).await?;
    client.batch_execute(MAKE).await
}

/// Switches to the owner of the tables until `reset role`, if this is a superuser's session.
///
/// `objects` are the names of the tables, sequences and functions that migrations create, separated by commas.
///
/// # Errors
/// If the connection is lost.
pub async fn become_owner(client: &Client, objects: &str) -> Result<(), Error> {
    if is_superuser(client).await? {
        client.query(OWNER_IS, &[&OWNER, &objects]).await?;
        client.batch_execute(MAKE_OWNER).await?;
        client.batch_execute(&format!("set role {OWNER}")).await?;
    }
    Ok(())
}

/// Grants the role for requests access to the tables; must be called by their owner, after [`create_request_role`] in the same
/// session.
///
/// # Errors
/// If the connection is lost or the session does not own the tables.
pub async fn grant(client: &Client) -> Result<(), Error> {
    client.batch_execute(GRANT).await
}

/// Whether the session's role is a superuser.
///
/// # Errors
/// If the connection is lost.
pub async fn is_superuser(client: &Client) -> Result<bool, Error> {
    client.query_one("select rolsuper from pg_roles where rolname = current_user", &[]).await?.try_get(0)
}
