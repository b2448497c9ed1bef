//! `dormouse preflight` and `dormouse adopt`.

use dormouse_api::adopt::AdoptResult;
use dormouse_api::preflight::{Check, CheckResult, Preflight};

use crate::units;

const GIB: u64 = 1 << 30;

pub fn preflight(preflight: &Preflight) -> String {
    let width = preflight.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let checks: String = preflight.checks.iter().map(|one| check(one, width)).collect();
    let disk = match &preflight.disk {
        Some(disk) => {
            let per_gib = GIB.saturating_mul(1000) / disk.read_bytes_per_second.max(1);
            format!(
                "A deep wake takes about {} for each GiB of working set ({} reads {}/s, a page in {} ms).\n",
                units::seconds(per_gib),
                disk.device,
                units::bytes(disk.read_bytes_per_second),
                units::ms(disk.read_latency_ns)
            )
        }
        None => "No swap: servers can doze here, but not go deep.\n".to_owned(),
    };
    checks + &disk
}

fn check(check: &Check, width: usize) -> String {
    let result = match check.result {
        CheckResult::Ok => "ok",
        CheckResult::Warn => "warn",
        CheckResult::Fail => "FAIL",
    };
    let line = format!("{result:<4}  {:<width$}  {}", check.name, check.found.replace('\n', " "));
    let remedy = check.remedy.as_ref().map(|remedy| format!("{:width$}        -> {remedy}\n", ""));
    format!("{}\n{}", line.trim_end(), remedy.unwrap_or_default())
}

pub fn adopted(result: &AdoptResult) -> String {
    let text = result.text.lines().map(|line| format!("    {line}").trim_end().to_owned() + "\n");
    let notes = result.notes.iter().map(|note| format!("note: {note}\n"));
    let servers = if result.servers.is_empty() { "none yet".to_owned() } else { result.servers.join(", ") };
    format!(
        "wrote {}\n\n{}\n{}servers, in observe mode: {servers}\n",
        result.file,
        text.collect::<String>(),
        notes.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use dormouse_api::preflight::Disk;

    use super::*;

    fn found(name: &str, result: CheckResult, found: &str, remedy: Option<&str>) -> Check {
        Check { name: name.into(), result, found: found.into(), remedy: remedy.map(Into::into) }
    }

    #[test]
    fn a_machine_with_a_gap() {
        let disk =
            Disk { device: "nvme0n1".into(), read_bytes_per_second: 4_939_212_390, read_latency_ns: 83_000 };
        let mut machine = Preflight {
            checks: vec![
                found("kernel", CheckResult::Ok, "6.1.0", None),
                found("memory controller", CheckResult::Warn, "on cgroup v1", Some("boot with pure v2")),
                found("bpf", CheckResult::Fail, "not permitted", Some("run as root")),
            ],
            disk: Some(disk),
        };
        assert_eq!(
            preflight(&machine),
            "\
ok    kernel             6.1.0
warn  memory controller  on cgroup v1
                         -> boot with pure v2
FAIL  bpf                not permitted
                         -> run as root
A deep wake takes about 0.22 s for each GiB of working set (nvme0n1 reads 4.6 GiB/s, a page in 0.08 ms).
"
        );
        machine.checks.clear();
        machine.disk = None;
        assert_eq!(preflight(&machine), "No swap: servers can doze here, but not go deep.\n");
    }

    #[test]
    fn an_adopted_server() {
        let result = AdoptResult {
            file: "/etc/dormouse/servers/luanti.toml".into(),
            text: "select = \"unit:luanti\"\n\nmode = \"observe\"\n".into(),
            servers: vec!["luanti".into()],
            notes: vec!["profile luanti: it listens on udp 30000".into()],
        };
        assert_eq!(
            adopted(&result),
            "\
wrote /etc/dormouse/servers/luanti.toml

    select = \"unit:luanti\"

    mode = \"observe\"

note: profile luanti: it listens on udp 30000
servers, in observe mode: luanti
"
        );
    }
}
