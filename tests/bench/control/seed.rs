//! The rows that a registry has after a while, written past the program: a hundred servers a tenant, fifty a node,
//! all reported, a hundred of them waking, however many there are.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

pub const PER_NODE: u32 = 50;

const NUMBERS: &str =
    "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ";

/// `{tenant}`, `{name}` and `{node}` of the server `n`; load.lua says the same in Lua.
fn text(sql: &str, count: u32) -> String {
    let padded = |digits: usize, number: &str| {
        format!("substr(CAST({} + {number} AS TEXT), 2)", 10u32.pow(digits as u32))
    };
    let sql = sql
        .replace("{tenant}", &format!("'t' || {}", padded(4, "n / 100")))
        .replace("{name}", &format!("'s' || {}", padded(2, "n % 100")))
        .replace("{node}", &format!("'n' || {}", padded(4, &format!("n / {PER_NODE}"))));
    let (insert, select) = sql.split_once("SELECT").unwrap_or((&sql, ""));
    format!("{insert} {NUMBERS}{count}) SELECT{select}")
}

fn statements(servers: u32) -> Vec<String> {
    vec![
        text(
            "INSERT INTO tenant (id, title, server_limit, servers, created_at, version) \
             SELECT 't' || substr(CAST(10000 + n AS TEXT), 2), 'a tenant', 1000, 100, 1, 1 FROM numbers",
            servers.div_ceil(100),
        ),
        text(
            "INSERT INTO node (name, total_bytes, created_at, version) \
             SELECT 'n' || substr(CAST(10000 + n AS TEXT), 2), 1099511627776, 1, 1 FROM numbers",
            servers.div_ceil(PER_NODE),
        ),
        text(
            "INSERT INTO server (tenant, name, profile, mode, node, memory_bytes, address, created_at, changed_at, \
             version, sequence) SELECT {tenant}, {name}, 'minecraft-java', 'full', {node}, 4294967296, \
             'play.example:25565', 1, 1, 1, 1 FROM numbers",
            servers,
        ),
        text(
            &"INSERT INTO server_report (tenant, name, stage, since_at, flows, resident_bytes, size_bytes, \
             last_player_at, reported_at) SELECT {tenant}, {name}, \
             CASE WHEN n % {few} = 7 THEN 'waking' WHEN n % 3 = 0 THEN 'awake' ELSE 'deep' END, 1, 0, 1073741824, \
             4294967296, 1, 1 FROM numbers"
                .replace("{few}", &(servers / 100).to_string()),
            servers,
        ),
        // What autovacuum does within a minute, and would do beside what is measured.
        "VACUUM ANALYZE".to_owned(),
    ]
}

pub async fn fill(database: &str, servers: u32) -> Result<()> {
    if database.starts_with("postgres://") {
        // Row security holds for the owner too.
        let superuser = database.replace("dormouse@", "postgres@");
        let mut connection = PgConnection::connect(&superuser).await?;
        for sql in statements(servers) {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        }
    } else {
        let mut connection = SqliteConnection::connect(database).await?;
        for sql in statements(servers).iter().filter(|sql| *sql != "VACUUM ANALYZE") {
            sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut connection).await?;
        }
    }
    Ok(())
}
