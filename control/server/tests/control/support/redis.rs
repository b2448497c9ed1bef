//! A Redis of the test's own.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Owned, free_port, until};

pub struct Redis {
    port: u16,
    server: Option<Owned>,
    folder: tempfile::TempDir,
}

impl Redis {
    pub async fn start() -> Self {
        let mut redis = Self { port: free_port(), server: None, folder: tempfile::tempdir().unwrap() };
        redis.start_again().await;
        redis
    }

    /// With what it had written (AOF, each second).
    pub async fn start_again(&mut self) {
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--port"])
            .arg(self.port.to_string())
            .arg("--dir")
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(Owned(server));
        let address = format!("127.0.0.1:{}", self.port);
        until(Duration::from_secs(20), "Redis", async || tokio::net::TcpStream::connect(&address).await.ok())
            .await;
    }

    pub fn stop(&mut self) {
        self.server = None;
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub async fn connect(&self) -> redis::aio::MultiplexedConnection {
        // Half a second is redis-rs's default: too little for a whole stream on a busy machine.
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }
}
