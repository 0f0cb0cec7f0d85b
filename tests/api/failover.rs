//! Several hosts with `target_session_attrs=read-write`: when the first becomes read-only while its connections stay open,
//! changes and reads move to the other.

use std::path::PathBuf;

use pycrudapi::db::conninfo::ConnInfo;
use pycrudapi::db::embedded::{Embedded, Options};
use pycrudapi::db::migrate;
use tokio_postgres::Client;
use warp::http::StatusCode;

use crate::harness::{TestApp, eventually, passenger, resources, with_roles};

/// Two PostgreSQL servers, each with the service's tables but without shared rows.
struct Two {
    servers: [Embedded; 2],
    _folder: tempfile::TempDir,
}

impl Two {
    async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("two").tempdir_in("/tmp").expect("a short path for sockets");
        let start = |name: &str| {
            let options = Options {
                data_dir: folder.path().join(name),
                pg_bin: std::env::var_os("PG_BIN").map(PathBuf::from),
                search_path: std::env::var_os("PATH"),
                extra_settings: Vec::new(),
            };
            Embedded::start(&options).expect("postgresql is installed")
        };
        let servers = tokio::task::block_in_place(|| [start("a"), start("b")]);
        for server in &servers {
            let one = ConnInfo::from_config(server.config()).expect("no TLS required");
            migrate::prepare(&with_roles(&one), &resources(), || ()).await.expect("migrated");
        }
        Self { servers, _folder: folder }
    }

    /// Both servers, in this order.
    fn conninfo(&self) -> ConnInfo {
        let folders = self.servers.each_ref().map(|server| {
            let config = server.config();
            let [tokio_postgres::config::Host::Unix(folder)] = config.get_hosts() else { panic!("one socket") };
            folder.display().to_string()
        });
        let text = format!("host={} user=postgres dbname=postgres target_session_attrs=read-write", folders.join(","));
        ConnInfo::parse(&text).expect("an address")
    }

    async fn client(&self, index: usize) -> Client {
        let one = ConnInfo::from_config(self.servers[index].config()).expect("no TLS required");
        migrate::connect(&one).await.expect("connected")
    }

    /// Existing connections stay open; every transaction that begins from now on is read-only.
    async fn demote_the_first(&self) {
        let client = self.client(0).await;
        client.batch_execute("alter system set default_transaction_read_only = on").await.expect("set");
        client.batch_execute("select pg_reload_conf()").await.expect("reloaded");
        eventually(|| async {
            let row = client.query_one("show transaction_read_only", &[]).await.expect("it answers");
            if row.get::<_, &str>(0) == "on" { Ok(()) } else { Err("still read-write".to_owned()) }
        })
        .await;
    }

    async fn rows(&self, index: usize) -> i64 {
        let client = self.client(index).await;
        client.query_one("select count(*) from passengers", &[]).await.expect("counted").get(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_change_redirects_every_connection() {
    let two = Two::start().await;
    let app = TestApp::start_on(&two.conninfo(), &["--pool-size=8"]).await;
    app.until_ready().await;
    // As many sessions as the pool allows.
    let body = passenger();
    let created = futures_util::future::join_all((0..64).map(|_| app.post("/v1/passengers", &body))).await;
    assert!(created.iter().all(|answer| answer.status == StatusCode::CREATED));
    two.demote_the_first().await;

    let mut refused: i64 = 0;
    for _ in 0..32 {
        let answer = app.post("/v1/passengers", &body).await;
        if answer.status != StatusCode::CREATED {
            answer.expect_problem(503, "unavailable"); // reported as not carried out
            refused += 1;
        }
    }
    // The heartbeat may have detected it before a change did.
    assert!(refused <= 1, "{refused} changes were refused; the first refusal ends every session");
    assert_eq!(two.rows(0).await, 64, "refused changes must not be stored");
    assert_eq!(two.rows(1).await, 32 - refused, "all other changes must be stored on the new primary");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_leave_a_demoted_server_even_without_writes() {
    let two = Two::start().await;
    let app = TestApp::start_on(&two.conninfo(), &[]).await;
    app.until_ready().await;
    let uuid = app.create(&passenger()).await;
    let path = format!("/v1/passengers/{uuid}");
    app.get(&path).await.expect(StatusCode::OK);
    two.demote_the_first().await;
    eventually(|| async {
        let answer = app.get(&path).await;
        if answer.status == StatusCode::NOT_FOUND {
            Ok(())
        } else {
            Err(format!("{}: the old server answers", answer.status))
        }
    })
    .await;
}
