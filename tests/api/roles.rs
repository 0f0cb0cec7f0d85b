//! The two roles: the role for requests can only change rows, the migrating role creates them, and
//! older databases are converted.

use pycrudapi::db::conninfo::ConnInfo;
use pycrudapi::db::migrate::{self, MigrateError};
use pycrudapi::db::roles;
use reqwest::StatusCode;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::failures::own_postgres;
use crate::harness::{Database, TestApp, eventually, passenger, send, with_roles};

/// Every object that does not belong to an extension, with its owner.
const OWNERS: &str = "
    select c.relname::text, relowner::regrole::text from pg_class c
    where relnamespace = 'public'::regnamespace and not exists (select from pg_depend where objid = c.oid and deptype = 'e')
    union all
    select proname::text, proowner::regrole::text from pg_proc p
    where pronamespace = 'public'::regnamespace and not exists (select from pg_depend where objid = p.oid and deptype = 'e')";

async fn expect_owner(client: &Client, owner: &str) {
    let rows = client.query(OWNERS, &[]).await.expect("listed");
    assert!(rows.len() > 20, "{}", rows.len());
    for row in rows {
        let (name, of): (&str, &str) = (row.get(0), row.get(1));
        assert_eq!(of, owner, "{name}");
    }
}

async fn expect_every_change_works(app: &TestApp) {
    let uuid = app.create(&passenger()).await;
    app.put(&format!("/v1/passengers/{uuid}"), &passenger()).await.expect(StatusCode::OK);
    app.delete(&format!("/v1/passengers/{uuid}")).await.expect(StatusCode::NO_CONTENT);
    app.get("/v1/air-quality").await.expect(StatusCode::OK);
    let step = app.request(reqwest::Method::POST, "/v1/steps?component=a&version=1&owner=o&status=started");
    send(step).await.expect(StatusCode::CREATED);
    let keyed = app.request(reqwest::Method::POST, "/v1/passengers").header("idempotency-key", "k").json(&passenger());
    send(keyed).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn requests_use_a_role_that_can_only_change_rows() {
    let app = TestApp::start_with(&["--pool-size=1"]).await;
    app.create(&passenger()).await;
    let database = app.database.as_ref().expect("own database");
    let administrator = database.client().await;
    let sessions = "select distinct usename::text from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'";
    // The session used for migrations may still be closing.
    eventually(|| async {
        let rows = administrator.query(sessions, &[]).await.expect("listed");
        let users: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if users == [roles::REQUESTS] { Ok(()) } else { Err(format!("{users:?}")) }
    })
    .await;

    let client = migrate::connect(&with_roles(&database.conninfo())).await.expect("connected");
    let rights = "select rolsuper or rolcreaterole or rolcreatedb or rolbypassrls or rolreplication from pg_roles
        where rolname = current_user";
    assert!(!client.query_one(rights, &[]).await.expect("a row").get::<_, bool>(0));
    let owned = "select count(*) from pg_class where relowner = current_user::regrole";
    assert_eq!(client.query_one(owned, &[]).await.expect("a row").get::<_, i64>(0), 0);
    for refused in [
        "create table mine (n int)",
        "create temporary table mine (n int)",
        "create schema mine",
        "create function mine() returns int language sql as 'select 1'",
        "create role mine",
        "drop table passengers",
        "drop index passengers_by_fare",
        "alter table passengers add column mine int",
        "alter table passengers disable trigger all",
        "alter role pycrudapi superuser",
        "truncate passengers",
        "truncate steps",
        "select setval('passengers_version_seq', 1)",
        "insert into refinery_schema_history (version, name) values (99, 'mine')",
        "update refinery_schema_history set version = 99",
        "delete from refinery_schema_history",
        "set role pycrudapi_owner",
        "copy passengers to program 'true'",
        "select pg_read_file('/etc/passwd')",
        "select rolpassword from pg_authid",
    ] {
        let error = client.batch_execute(refused).await.expect_err(refused);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{refused}: {error:?}");
    }
}

#[tokio::test]
async fn a_database_without_the_roles_is_converted_in_place() {
    let database = Database::empty().await;
    let mut administrator = database.client().await;
    // A database as the first release created it, with rows.
    migrate::run(&mut administrator, &crate::harness::resources(), None).await.expect("migrated");
    expect_owner(&administrator, "postgres").await;
    let rows = "insert into passengers select gen_random_uuid(), true, 1, 'n', 'male', null, 0, 0, 1, 1 from generate_series(1, 9)";
    administrator.batch_execute(rows).await.expect("inserted");
    let state = "select array_agg(p::text order by uuid)::text from passengers p";
    let before: String = administrator.query_one(state, &[]).await.expect("a row").get(0);

    for _ in 0..2 {
        let app = TestApp::start_on(&database.conninfo(), &[]).await;
        expect_owner(&administrator, "pycrudapi_owner").await;
        let now: String = administrator.query_one(state, &[]).await.expect("a row").get(0);
        assert_eq!(now, before);
        drop(app);
    }
    expect_every_change_works(&TestApp::start_on(&database.conninfo(), &[]).await).await;
}

#[tokio::test]
async fn objects_owned_by_the_administrator_after_a_restore_are_reassigned() {
    let database = Database::migrated().await;
    let administrator = database.client().await;
    expect_owner(&administrator, "pycrudapi_owner").await;
    let restored = "do $$ declare name text; begin
        for name in select oid::regclass from pg_class where relowner = 'pycrudapi_owner'::regrole and relkind = 'r' loop
            execute format('alter table %s owner to postgres', name);
        end loop;
        for name in select oid::regprocedure from pg_proc where proowner = 'pycrudapi_owner'::regrole loop
            execute format('alter function %s owner to postgres', name);
        end loop;
    end $$";
    administrator.batch_execute(restored).await.expect("changed");
    expect_owner(&administrator, "postgres").await;
    expect_every_change_works(&TestApp::start_on(&database.conninfo(), &[]).await).await;
    expect_owner(&administrator, "pycrudapi_owner").await;
}

#[tokio::test]
async fn foreign_tables_are_unchanged_and_later_tables_of_the_owner_are_granted() {
    let database = Database::empty().await;
    let administrator = database.client().await;
    administrator.batch_execute("create table theirs (n int)").await.expect("created");
    let conninfo = with_roles(&database.conninfo());
    let (_, requests) = migrate::prepare(&conninfo, &crate::harness::resources(), || ()).await.expect("migrated");
    let error = requests.batch_execute("select from theirs").await.expect_err("it is not ours");
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    let later = "set role pycrudapi_owner; create table later (n int generated always as identity, m int); reset role";
    administrator.batch_execute(later).await.expect("created");
    requests.batch_execute("insert into later (m) values (1); delete from later").await.expect("granted");
}

#[tokio::test]
async fn an_owner_without_superuser_rights_can_migrate_and_grant() {
    let (postgres, _folder) = own_postgres(Vec::new());
    let superuser = ConnInfo::from_config(postgres.config()).expect("no TLS required");
    let administrator = migrate::connect(&superuser).await.expect("connected");
    // The statements that docs/operations.md gives to administrators.
    let mut config = postgres.config();
    for statement in ["create role app_owner login", "create role app login", "create database app owner app_owner"] {
        administrator.batch_execute(statement).await.expect(statement);
    }
    config.user("app_owner").dbname("app");
    let conninfo = ConnInfo::from_config(config).expect("no TLS is asked for").with_request_role("app");
    let app = TestApp::start_on(&conninfo, &[]).await;
    expect_every_change_works(&app).await;
    let inside = migrate::connect(&conninfo.as_migrator().expect("another role")).await.expect("connected");
    expect_owner(&inside, "app_owner").await;
}

#[tokio::test]
async fn migrating_never_changes_the_password_used_by_running_servers() {
    let (postgres, folder) = own_postgres(Vec::new());
    let rules = "local all pycrudapi scram-sha-256\nlocal all all trust\n";
    std::fs::write(folder.path().join("embedded/data/pg_hba.conf"), rules).expect("written");
    let superuser = ConnInfo::from_config(postgres.config()).expect("no TLS required");
    let administrator = migrate::connect(&superuser).await.expect("connected");
    administrator.batch_execute("select pg_reload_conf()").await.expect("reloaded");
    let with_password = |password: &str| {
        let mut conninfo = superuser.clone().with_request_role(roles::REQUESTS);
        conninfo.config.password(password);
        conninfo
    };
    // pg_hba.conf applies to processes started after the reload, which may not include the next connection.
    eventually(|| async {
        match migrate::connect(&with_password("none")).await {
            Err(MigrateError::Connect(error)) if error.code() == Some(&SqlState::INVALID_PASSWORD) => Ok(()),
            other => Err(format!("{:?}", other.err())),
        }
    })
    .await;

    migrate::prepare(&with_password("first"), &crate::harness::resources(), || ()).await.expect("the role is made");
    let error = migrate::prepare(&with_password("second"), &crate::harness::resources(), || ())
        .await
        .expect_err("it has another password");
    assert!(matches!(error, MigrateError::Requests(_)), "{error:?}");
    assert!(error.to_string().contains("POSTGRES_USER"), "{error}");
    migrate::connect(&with_password("first")).await.expect("running servers still can");
    let stored: String = administrator
        .query_one("select rolpassword from pg_authid where rolname = 'pycrudapi'", &[])
        .await
        .expect("a row")
        .get(0);
    assert!(stored.starts_with("SCRAM-SHA-256$"), "{stored}");
}

#[tokio::test]
async fn a_schema_migrated_by_a_newer_release_is_served_unchanged() {
    let database = Database::migrated().await;
    let administrator = database.client().await;
    let newer = "insert into refinery_schema_history (version, name, applied_on, checksum)
        select 99, 'of_a_newer_release', applied_on, checksum from refinery_schema_history where version = 1";
    administrator.batch_execute(newer).await.expect("inserted");
    // Pods of the old release that restart during a rollout, whichever role migrates.
    for flags in [&["--migrate=true"][..], &["--migrate=false"]] {
        let app = TestApp::start_on(&database.conninfo(), flags).await;
        for path in ["/readyz", "/readyz?exclude=postgres", "/passengerlist"] {
            app.get(path).await.expect(StatusCode::OK);
        }
    }
    migrate::prepare(&with_roles(&database.conninfo()), &crate::harness::resources(), || ())
        .await
        .expect("nothing is missing");
    assert_eq!(
        migrate::run(&mut database.client().await, &crate::harness::resources(), None)
            .await
            .expect("nothing is missing"),
        0
    );
}
