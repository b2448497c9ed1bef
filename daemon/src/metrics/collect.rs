//! From the records to series: what a scrape walks.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::{Node, Server};

#[derive(Debug)]
pub(super) struct Collect(pub Arc<Mutex<Node>>);

impl Collector for Collect {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let node = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Writer { encoder }.node(&node)
    }
}

const STAGES: [&str; 4] = ["awake", "dozing", "deep", "waking"];

type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Writer<'_> {
    fn node(&mut self, node: &Node) -> fmt::Result {
        self.gauges(
            "build_info",
            "The version of the running daemon",
            None,
            [([("version", node.version)], 1)],
        )?;
        self.gauge("guard_up", "Whether the guard runs", u64::from(node.guard_up))?;
        let errors = node.config_errors as u64;
        self.gauge("config_errors", "Errors in configuration files, at the last reading", errors)?;
        let unparsed = "Packets that could not be parsed; they passed";
        self.counter("unparsed", unparsed, node.unparsed.total())?;
        let features =
            node.kernel_features.iter().map(|(feature, there)| ([("feature", *feature)], u64::from(*there)));
        self.gauges(
            "kernel_feature",
            "Whether this machine's kernel has what makes dormouse better",
            None,
            features,
        )?;
        let servers = STAGES.map(|stage| {
            let there = node.servers.values().filter(|server| server.stage.word() == stage).count();
            ([("stage", stage)], there as u64)
        });
        self.gauges("servers", "Servers, by their stage", None, servers)?;
        let pool = [
            ("pool_handed_back", "Memory that sleepers give back now", node.pool.handed_back),
            ("pool_headroom", "Memory to be kept free for the largest wakes together", node.pool.headroom),
            ("pool_available", "Memory that the kernel could give without swapping", node.pool.available),
            ("pool_short", "Memory that is missing to the headroom and the reserve", node.pool.short()),
            ("pool_reserve", "Memory to be kept free for those who are awake", node.pool.reserve),
        ];
        for (name, help, bytes) in pool {
            self.gauges(name, help, Some(&Unit::Bytes), [([], bytes)])?;
        }
        let exhausted =
            "1 while memory is missing and no sleeper can go deeper: no more servers should come here";
        self.gauge("pool_exhausted", exhausted, u64::from(node.pool_exhausted))?;
        let budget = node.deep_write_budget.map(|bytes| ([], bytes));
        let help = "What page-outs may write to swap on a day (UTC)";
        self.gauges("deep_write_budget", help, Some(&Unit::Bytes), budget)?;
        let aborted = node.doze_aborted.iter().map(|(reason, count)| ([("reason", *reason)], *count));
        self.counters("doze_aborted", "Dozes that were called off, by reason", None, aborted)?;
        self.servers(node)
    }

    fn servers(&mut self, node: &Node) -> fmt::Result {
        let servers = || node.servers.iter();
        let stages = servers().flat_map(|(name, server)| {
            STAGES.map(|stage| {
                let labels =
                    [("server", name.as_str()), ("profile", server.profile.as_str()), ("stage", stage)];
                (labels, u64::from(server.stage.word() == stage))
            })
        });
        self.gauges("server_stage", "1 for the stage that the server is in", None, stages)?;
        let wakes = servers().flat_map(|(name, server)| {
            server.wakes.iter().map(move |((cause, from), count)| {
                ([("server", name.as_str()), ("cause", *cause), ("from_stage", *from)], *count)
            })
        });
        self.counters("wakes", "Wakes, by cause and the stage that they began in", None, wakes)?;
        let refused = servers().filter_map(|(name, server)| {
            server.refused.map(|reason| ([("server", name.as_str()), ("reason", reason)], 1))
        });
        self.gauges(
            "sleep_refused",
            "1 for the reason why the server is not put to sleep now",
            None,
            refused,
        )?;
        let knocks = servers().flat_map(|(name, server)| {
            server.door.knocks().map(|(class, count)| ([("server", name.as_str()), ("class", class)], count))
        });
        self.counters("knocks", "Payload packets that came while the server slept, by class", None, knocks)?;
        let each = |value: fn(&Server) -> u64| {
            servers().map(move |(name, server)| ([("server", name.as_str())], value(server)))
        };
        let answered = each(|server| server.queries_answered);
        self.counters("queries_answered", "Queries that were answered without a wake", None, answered)?;
        let demotions = each(|server| server.demotions);
        self.counters(
            "demotions",
            "Wakes that hurt the game, so that it sleeps less deep since",
            None,
            demotions,
        )?;
        let handed_back = each(|server| server.handed_back);
        self.gauges("handed_back", "Memory that a sleeper gives back now", Some(&Unit::Bytes), handed_back)?;
        let written = each(|server| server.swap_written);
        self.counters("swap_written", "Memory that was written to swap", Some(&Unit::Bytes), written)?;
        let today = each(|server| server.swap_written_today);
        let help = "Memory that was written to swap since midnight UTC";
        self.gauges("swap_written_today", help, Some(&Unit::Bytes), today)?;
        let plain: Vec<_> = servers().map(|(name, server)| (name, server.door.plain())).collect();
        for (index, (name, help, _)) in super::DoorTotals::default().plain().into_iter().enumerate() {
            let series = plain.iter().map(|(server, plain)| ([("server", server.as_str())], plain[index].2));
            self.counters(name, help, None, series)?;
        }
        Ok(())
    }

    /// Without labels.
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    /// Without labels.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = (Labels<'a, N>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        series
            .into_iter()
            .try_for_each(|(labels, value)| ConstCounter::new(value).encode(metric.encode_family(&labels)?))
    }

    fn gauges<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = (Labels<'a, N>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        series
            .into_iter()
            .try_for_each(|(labels, value)| ConstGauge::new(value).encode(metric.encode_family(&labels)?))
    }
}
