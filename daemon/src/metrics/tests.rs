use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::limits::DozeBy;

const DEEP: Stage = Stage::Deep { by: DozeBy::Freeze };

/// A node on which everything has happened once.
struct AsItIs;

impl Refresh for AsItIs {
    async fn refresh(&self) {}
}

fn busy() -> Metrics {
    let metrics = Metrics::new("0.1.0");
    metrics.server("acme/survival", "minecraft-java", Stage::Awake);
    metrics.server("luanti", "luanti", DEEP);
    metrics.woken("acme/survival", &Cause::Player { from: None }, DEEP);
    metrics.answered(DEEP, Duration::from_micros(4200));
    metrics.doze_aborted(&DozeAborted::Knocked);
    let counters =
        Counters { packets: 70, bytes: 4000, player: 3, query: 5, parked: 2, ..Counters::default() };
    metrics.door("acme/survival", &counters, Tally { replayed: 2, expired: 1, untold: 0 });
    metrics.query_answered("luanti");
    metrics.demoted("luanti");
    metrics.handed_back("luanti", 1 << 30);
    metrics.swap_written("luanti", 4096);
    metrics.sleep_refused("acme/survival", Some(&Refusal::FloorAwake));
    metrics.guard_up(true);
    metrics.config_errors(2);
    metrics.unparsed(7);
    let feature = |name, there| Feature { name, there, check: None };
    metrics.kernel_features(&[feature("tcx", true), feature("pagemap_scan", false)]);
    metrics
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
}

#[test]
fn everything_that_happened_is_shown() {
    let text = busy().text(Format::Prometheus);
    for line in [
        "dormouse_build_info{version=\"0.1.0\"} 1",
        "dormouse_guard_up 1",
        "dormouse_config_errors 2",
        "dormouse_unparsed_total 7",
        "dormouse_kernel_feature{feature=\"tcx\"} 1",
        "dormouse_kernel_feature{feature=\"pagemap_scan\"} 0",
        "dormouse_servers{stage=\"awake\"} 1",
        "dormouse_servers{stage=\"deep\"} 1",
        "dormouse_servers{stage=\"waking\"} 0",
        "dormouse_server_stage{server=\"luanti\",profile=\"luanti\",stage=\"deep\"} 1",
        "dormouse_server_stage{server=\"luanti\",profile=\"luanti\",stage=\"awake\"} 0",
        "# TYPE dormouse_wakes_total counter",
        "dormouse_wakes_total{server=\"acme/survival\",cause=\"player\",from_stage=\"deep\"} 1",
        "# TYPE dormouse_wake_seconds histogram",
        "dormouse_wake_seconds_bucket{le=\"0.0025\",from_stage=\"deep\"} 0",
        "dormouse_wake_seconds_bucket{le=\"0.005\",from_stage=\"deep\"} 1",
        "dormouse_doze_aborted_total{reason=\"knocked\"} 1",
        "dormouse_packets_total{server=\"acme/survival\"} 70",
        "dormouse_packet_bytes_total{server=\"acme/survival\"} 4000",
        "dormouse_replayed_total{server=\"acme/survival\"} 2",
        "dormouse_expired_total{server=\"acme/survival\"} 1",
        "dormouse_knocks_total{server=\"acme/survival\",class=\"query\"} 5",
        "dormouse_queries_answered_total{server=\"luanti\"} 1",
        "dormouse_demotions_total{server=\"luanti\"} 1",
        "dormouse_handed_back_bytes{server=\"luanti\"} 1073741824",
        "dormouse_swap_written_bytes_total{server=\"luanti\"} 4096",
        "dormouse_sleep_refused{server=\"acme/survival\",reason=\"floor-awake\"} 1",
    ] {
        has(&text, line);
    }
}

#[test]
fn counters_follow_a_door_that_was_loaded_anew() {
    let metrics = busy();
    metrics.door(
        "acme/survival",
        &Counters { packets: 80, ..Counters::default() },
        Tally { replayed: 3, expired: 1, untold: 0 },
    );
    metrics.door("acme/survival", &Counters { packets: 5, ..Counters::default() }, Tally::default());
    let text = metrics.text(Format::Prometheus);
    has(&text, "dormouse_packets_total{server=\"acme/survival\"} 85");
    has(&text, "dormouse_replayed_total{server=\"acme/survival\"} 3");
    has(&text, "dormouse_knocks_total{server=\"acme/survival\",class=\"player\"} 3");
}

#[test]
fn a_server_that_goes_takes_its_series_along_and_an_unknown_one_has_none() {
    let metrics = busy();
    metrics.forget("luanti");
    metrics.query_answered("luanti");
    metrics.swap_written("nobody", 1);
    metrics.sleep_refused("acme/survival", None);
    let text = metrics.text(Format::Prometheus);
    assert!(!text.contains("luanti") && !text.contains("nobody"), "{text}");
    assert!(!text.contains("dormouse_sleep_refused{"), "{text}");
    has(&text, "dormouse_servers{stage=\"deep\"} 0");
}

#[test]
fn the_real_promtool_finds_nothing_to_say() {
    for (what, metrics) in [("busy", busy()), ("empty", Metrics::new("0.1.0"))] {
        let mut promtool = match Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
        {
            Ok(promtool) => promtool,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: promtool is not installed (Debian: prometheus)");
                return;
            }
            Err(error) => panic!("promtool: {error}"),
        };
        let text = metrics.text(Format::Prometheus);
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.trim().is_empty(), "{what}: {said}\n{text}");
    }
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request}\r\nhost: node\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn one_path_is_served_and_nothing_else() {
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = bind(address).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let server = tokio::spawn(serve(listener, Arc::new(busy()), AsItIs));

    let plain = ask(address, "GET /metrics HTTP/1.1").await;
    assert!(plain.starts_with("HTTP/1.1 200") && plain.contains("text/plain; version=0.0.4"), "{plain}");
    assert!(plain.contains("dormouse_guard_up 1"), "{plain}");
    let open =
        ask(address, "GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;version=1.0.0").await;
    assert!(open.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"), "{open}");
    assert!(open.trim_end().ends_with("# EOF") && open.contains("# TYPE dormouse_wakes counter"), "{open}");
    assert!(ask(address, "GET / HTTP/1.1").await.starts_with("HTTP/1.1 404"));
    assert!(ask(address, "POST /metrics HTTP/1.1").await.starts_with("HTTP/1.1 405"));
    server.abort();
}
