//! A PostgreSQL database of its own for a test.

use std::{io::Write as _, str::FromStr as _};

use callbox_server::store::Postgres;
use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

/// Where a server is that tests may make databases on.
const SERVER: &str = "CALLBOX_TEST_POSTGRES";

/// A database, removed when it is dropped.
pub(crate) struct Database {
    server: PgConnectOptions,
    name: String,
}

impl Database {
    /// A fresh one. None, and said so loudly, where no server is given: `cargo xtask test`, which
    /// is what counts, always gives one.
    pub(crate) async fn fresh() -> Option<Database> {
        let Ok(server) = std::env::var(SERVER) else {
            // Not by `eprintln!`, which is not seen of a test that passes.
            let _ = writeln!(
                std::io::stderr(),
                "\n!!! NOT TESTED with PostgreSQL: {SERVER} names no server.\n\
                 !!! `cargo xtask test rust` starts one and runs this test with it.\n"
            );
            return None;
        };
        let server = PgConnectOptions::from_str(&server).unwrap();
        let name = format!("callbox_test_{}", Uuid::new_v4().simple());
        let mut connection = PgConnection::connect_with(&server).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(format!("create database {name}"))).await.unwrap();
        Some(Database { server, name })
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    /// Where the server is.
    pub(crate) async fn server(&self) -> std::net::SocketAddr {
        let host = (self.server.get_host(), self.server.get_port());
        tokio::net::lookup_host(host).await.unwrap().next().unwrap()
    }

    /// As the configuration has it; through what stands at this port, if anything does.
    pub(crate) fn url(&self, port: Option<u16>) -> String {
        let mut url = self.server.clone().database(&self.name);
        if let Some(port) = port {
            url = url.host("127.0.0.1").port(port);
        }
        url.to_url_lossy().to_string()
    }

    pub(crate) async fn open(&self) -> Postgres {
        Postgres::open(self.options()).await.unwrap()
    }

    /// For looking behind the store.
    pub(crate) fn pool(&self) -> sqlx::PgPool {
        PgPoolOptions::new().max_connections(1).connect_lazy_with(self.options())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("drop database {} with (force)", self.name);
        let server = self.server.clone();
        // A test's own runtime may be on its way out.
        let gone = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let mut connection = PgConnection::connect_with(&server).await.unwrap();
                connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
            });
        });
        assert!(gone.join().is_ok() || std::thread::panicking(), "a test's database is left");
    }
}
