//! The two roles on PostgreSQL: one owns the tables and migrates them, the other works for requests.
//!
//! Requests may read and change rows, and nothing else: not make, alter, drop or truncate a table, nor write down which
//! migrations have run. Whoever migrates ([`ConnInfo::migrator`]) makes the role that requests work as, once, and never
//! changes the password of one that is there: servers that are running have the old one. An administrator who is a
//! superuser makes a role besides that owns the tables and cannot log in, so that no function of ours runs with his rights.

use postgres_protocol::password::scram_sha_256;
use tokio_postgres::{Client, Error};

use super::conninfo::ConnInfo;

/// The role of requests where nobody named another.
pub const REQUESTS: &str = "pycrudapi";

/// The owner of the tables where a superuser migrates.
const OWNER: &str = "pycrudapi_owner";

/// What the statements below are told; parameters do not reach a `do` block.
const REQUESTS_ARE: &str =
    "select set_config('pycrudapi.requests', $1, false), set_config('pycrudapi.verifier', $2, false)";
const OWNER_IS: &str = "select set_config('pycrudapi.owner', $1, false), set_config('pycrudapi.objects', $2, false)";

/// Roles are the whole server's and may be made by another database's migration at the same moment.
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

/// Hands what a superuser owns of this program's objects to the owner: those of releases that knew no owner, and what a
/// restore left to the superuser. No row is touched.
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

/// Grants on what there is, and on what later migrations make.
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
    -- Which migrations have run is the owner's to say.
    execute format('revoke insert, update, delete on refinery_schema_history from %I', requests);
end
$$";

/// Makes the role that requests work as, unless it is there.
///
/// # Errors
/// When the role is missing and this session may not make it, or the connection is lost.
pub async fn make_requests(client: &Client, requests: &ConnInfo) -> Result<(), Error> {
    let name = requests.config.get_user().unwrap_or(REQUESTS);
    // The verifier in place of the password, which the server might log with the statement.
    let verifier = requests.config.get_password().map(scram_sha_256).unwrap_or_default();
    client.query(REQUESTS_ARE, &[&name, &verifier]).await?;
    client.batch_execute(MAKE).await
}

/// Becomes the owner of the tables until `reset role`, if this is a superuser's session.
///
/// `objects` are the names of the tables, sequences and functions that migrations make, with commas between them.
///
/// # Errors
/// When the connection is lost.
pub async fn become_owner(client: &Client, objects: &str) -> Result<(), Error> {
    if is_superuser(client).await? {
        client.query(OWNER_IS, &[&OWNER, &objects]).await?;
        client.batch_execute(MAKE_OWNER).await?;
        client.batch_execute(&format!("set role {OWNER}")).await?;
    }
    Ok(())
}

/// Lets requests use the tables; by their owner, after [`make_requests`] in the same session.
///
/// # Errors
/// When the connection is lost or the session does not own the tables.
pub async fn grant(client: &Client) -> Result<(), Error> {
    client.batch_execute(GRANT).await
}

/// Whether the session may do everything.
///
/// # Errors
/// When the connection is lost.
pub async fn is_superuser(client: &Client) -> Result<bool, Error> {
    client.query_one("select rolsuper from pg_roles where rolname = current_user", &[]).await?.try_get(0)
}
