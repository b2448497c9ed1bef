//! What a kernel lacks is told in three places: in the log at the start, by `preflight`, and as a metric.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use crate::stand::{SOON, Stand, is_pure_v2, kernel};

/// Where the daemon's metrics are, in the node's namespace.
const METRICS: &str = "127.0.0.1:9877";
/// The feature, the check, the kernel that brought it, a word of its line in the log where it is missing.
const SINCE: [(&str, &str, (u32, u32)); 3] = [
    ("tcx", "TC hook", (6, 6)),
    ("pagemap_scan", "PAGEMAP_SCAN", (6, 7)),
    ("reclaim_swappiness", "memory.reclaim", (6, 9)),
];
const ALWAYS: [&str; 7] = [
    "btf",
    "membarrier",
    "freezer",
    "cpu_controller",
    "memory_controller",
    "memory_pressure",
    "process_madvise",
];

#[test]
fn what_this_kernel_lacks_is_told() {
    if !is_pure_v2() {
        return;
    }
    let stand = Stand::new("freeze");
    let config = stand.daemon.path("dormoused.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"never\"", &format!("{METRICS:?}"))).unwrap();
    let stand = stand.start();
    let metrics = stand.node.netns.run(|| {
        let mut stream = TcpStream::connect(METRICS).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let preflight = stand.daemon.ask(async |client| Ok(client.preflight().await?)).unwrap();
    let log = stand.daemon.log();
    let metric = |feature: &str, there: bool| {
        let line = format!("dormouse_kernel_feature{{feature=\"{feature}\"}} {}", u8::from(there));
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
        let told = log.lines().any(|line| line.contains("lacks") && line.contains(&format!("{feature:?}")));
        assert_eq!(told, !there, "{feature}\n{log}");
    };
    for (feature, check, since) in SINCE {
        let there = kernel() >= since;
        metric(feature, there);
        let check = preflight.checks.iter().find(|found| found.name == check).unwrap();
        assert_eq!(check.remedy.is_none(), there, "{check:?}");
    }
    for feature in ALWAYS {
        metric(feature, true);
    }
}
