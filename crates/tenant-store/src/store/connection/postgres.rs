//! PostgreSQL: for more than one replica. Tables belong to the role that migrates; the role that serves owns nothing, and sees of a
//! tenant's rows what row-level security lets it see.

use std::str::FromStr as _;
use std::time::Duration;

use sea_orm::sqlx::ConnectOptions as _;
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgSslMode};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend, SqlxPostgresConnector, Statement,
};
use url::Url;

use super::ACQUIRE_TIMEOUT;
use crate::error::{PostgresUrlError, StoreError};

const CONNECTIONS_MAX: u32 = 10;
/// How long a connection may lie idle, and how long it is used at most, so that a database which moved is found.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);
const LIFE_MAX: Duration = Duration::from_mins(30);

/// What ends what takes too long: a statement, a wait for whoever else is writing, a transaction that its process forgot.
const SESSION: [(&str, &str); 3] =
    [("statement_timeout", "30s"), ("lock_timeout", "10s"), ("idle_in_transaction_session_timeout", "60s")];

/// The parameters that a URL may have. The driver would log others, with their values.
const PARAMETERS: [&str; 6] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "application_name"];
const OUR_NAME: &str = "mcp-mux";

pub(super) async fn open(url: &str) -> Result<DatabaseConnection, StoreError> {
    let options = options(url).map_err(StoreError::PostgresUrl)?;
    let host = options.get_socket().map_or_else(|| options.get_host().to_owned(), |path| path.display().to_string());
    let pool = PoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .max_lifetime(LIFE_MAX)
        .connect_with(options)
        .await;
    let pool = pool.map_err(|source| StoreError::Connect { host, source })?;
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}

/// What a URL says. A connection proves who it leads to, unless the URL says plainly that it need not or it leads to a local socket.
fn options(url: &str) -> Result<PgConnectOptions, PostgresUrlError> {
    // The driver takes over what PGOPTIONS says, which could be whose rows are seen.
    if PgConnectOptions::new_without_pgpass().get_options().is_some() {
        return Err(PostgresUrlError::Environment);
    }
    let parsed = Url::parse(url).map_err(|_| PostgresUrlError::Unreadable)?;
    let mut ssl_mode = None;
    for (name, value) in parsed.query_pairs() {
        match PARAMETERS.into_iter().find(|known| *known == name) {
            None => return Err(PostgresUrlError::Parameter),
            Some("sslmode") if value == "disable" => ssl_mode = Some(PgSslMode::Disable),
            Some("sslmode") if value == "verify-full" => ssl_mode = Some(PgSslMode::VerifyFull),
            Some("sslmode") => return Err(PostgresUrlError::SslMode),
            Some(_) => {}
        }
    }
    let mut options = PgConnectOptions::from_str(url).map_err(|_| PostgresUrlError::Unreadable)?;
    let is_local = options.get_socket().is_some() || options.get_host().starts_with('/');
    // Always said, so that no variable of the environment says something else.
    let usual = if is_local { PgSslMode::Disable } else { PgSslMode::VerifyFull };
    options = options.ssl_mode(ssl_mode.unwrap_or(usual));
    if options.get_application_name().is_none() {
        options = options.application_name(OUR_NAME);
    }
    // Statements would be logged with their text; errors name what failed.
    Ok(options.options(SESSION).disable_statement_logging())
}

/// Fails if the role of `database` could look past row-level security: by right, or because the tables are its own.
pub(crate) async fn check_role(database: &DatabaseConnection) -> Result<(), StoreError> {
    const SQL: &str = "SELECT current_user::text AS name, rolsuper OR rolbypassrls AS bypasses, EXISTS (\
        SELECT 1 FROM pg_class WHERE oid = to_regclass('tenant') AND pg_has_role(relowner, 'MEMBER')) AS owns \
        FROM pg_roles WHERE rolname = current_user";
    let row = database.query_one_raw(Statement::from_string(DbBackend::Postgres, SQL)).await;
    let row = row.map_err(StoreError::read("pg_roles"))?;
    let row = row.ok_or_else(|| StoreError::NotFound { what: "role", name: "of the connection".to_owned() })?;
    let has = |column: &str| row.try_get::<bool>("", column).map_err(StoreError::read("pg_roles"));
    if has("bypasses")? || has("owns")? {
        let name = row.try_get("", "name").map_err(StoreError::read("pg_roles"))?;
        return Err(StoreError::MightyRole { name });
    }
    Ok(())
}

/// Lets a transaction of the owner take as long as it must.
pub(crate) async fn unhurried(owner: &DatabaseTransaction) -> Result<(), StoreError> {
    let set = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";
    owner.execute_unprepared(set).await.map_err(StoreError::Transaction)?;
    Ok(())
}

/// Lets the role that `url` names read and write the tables of `owner`, which is another one.
pub(crate) async fn admit(owner: &DatabaseTransaction, url: &str) -> Result<(), StoreError> {
    let options = options(url).map_err(StoreError::PostgresUrl)?;
    let name = options.get_username().to_owned();
    let sql = "SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO %I; \
               REVOKE INSERT, UPDATE, DELETE ON seaql_migrations FROM %I; \
               REVOKE UPDATE ON audit_event, audit_checkpoint, audit_key FROM %I; \
               REVOKE DELETE ON audit_key, audit_pruned FROM %I', \
               current_schema(), $1, $1, $1, $1) AS grants, \
               current_user = $1 AS is_owner";
    let asked = Statement::from_sql_and_values(DbBackend::Postgres, sql, [name.as_str().into()]);
    let row = owner.query_one_raw(asked).await.map_err(StoreError::Admit)?;
    let row = row.ok_or_else(|| StoreError::NotFound { what: "role", name: name.clone() })?;
    if row.try_get("", "is_owner").map_err(StoreError::Admit)? {
        return Err(StoreError::MightyRole { name });
    }
    let grants: String = row.try_get("", "grants").map_err(StoreError::Admit)?;
    owner.execute_unprepared(&grants).await.map_err(StoreError::Admit)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_proved_unless_it_is_plainly_said_that_it_need_not_be() {
        let mode = |url: &str| options(url).map(|options| format!("{:?}", options.get_ssl_mode()));
        for (url, wanted) in [
            ("postgres://mux:pw@db.example/mux", "VerifyFull"),
            ("postgresql://mux:pw@db.example/mux?sslmode=verify-full&sslrootcert=/etc/ca.pem", "VerifyFull"),
            ("postgres://mux:pw@127.0.0.1/mux?sslmode=disable", "Disable"),
            ("postgres://mux@localhost/mux?host=/run/postgresql", "Disable"),
        ] {
            assert_eq!(mode(url).unwrap(), wanted, "{url}");
        }
        for mode in ["prefer", "allow", "require", "verify-ca", "CANARY"] {
            let error = options(&format!("postgres://mux:pw@db.example/mux?sslmode={mode}")).unwrap_err();
            assert_eq!(error, PostgresUrlError::SslMode, "{mode}");
        }
    }

    #[test]
    fn what_a_url_should_not_say_is_refused_and_not_repeated() {
        for url in ["postgres://mux:pw@db.example/mux?password=CANARY", "postgres://mux:CANARY@[::1/mux"] {
            let error = options(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("CANARY"), "{error}");
        }
    }
}
