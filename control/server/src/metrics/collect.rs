//! From what was read to series: what a scrape walks. What cannot be read now has no series.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::seen::Seen;
use super::{Read, lost};

#[derive(Debug)]
pub(super) struct Collect(pub Arc<Mutex<Read>>);

impl Collector for Collect {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Writer { encoder }.all(&read)
    }
}

type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Writer<'_> {
    fn all(&mut self, read: &Read) -> fmt::Result {
        let version = [([("version", env!("CARGO_PKG_VERSION"))], 1.0)];
        self.gauges("build_info", "The version of the running control plane", None, version)?;
        let up = f64::from(u8::from(read.database.is_some()));
        self.gauge("database_up", "Whether the database answered this scrape", None, up)?;
        if let Some(lost) = lost(read) {
            let help =
                "Entries that could not be written to the index; the next change or refresh heals them";
            let family =
                self.encoder.encode_descriptor("index_writes_dropped", help, None, MetricType::Counter)?;
            ConstCounter::new(lost).encode(family)?;
        }
        if let Some(at) = read.refreshed_at_ms {
            let help = "When the last refresh of the whole index ended";
            self.gauge("index_refresh_timestamp", help, Some(&Unit::Seconds), seconds(at))?;
        }
        read.database.as_ref().map_or(Ok(()), |seen| self.seen(seen))
    }

    fn seen(&mut self, seen: &Seen) -> fmt::Result {
        let sinks = || [("readers", Some(seen.unsequenced)), ("redis", seen.unsent)].into_iter();
        let events = sinks().filter_map(|(sink, waiting)| Some(([("sink", sink)], waiting?.events as f64)));
        self.gauges(
            "outbox_waiting",
            "Events that wait in the outbox, by who has not got them",
            None,
            events,
        )?;
        let oldest =
            sinks().filter_map(|(sink, waiting)| Some(([("sink", sink)], seconds(waiting?.oldest_ms))));
        let help = "How long the oldest of the waiting events has waited";
        self.gauges("outbox_oldest", help, Some(&Unit::Seconds), oldest)?;
        let erasures = &seen.erasures;
        let states = [("open", erasures.open), ("overdue", erasures.overdue)];
        let states = states.map(|(state, count)| ([("state", state)], count as f64));
        let help = "Requests for erasure that not every service has answered; the overdue ones are open too";
        self.gauges("erasures", help, None, states)?;
        if let Some(deadline) = erasures.nearest_deadline_at_ms {
            let help =
                "Time to the nearest deadline of an open request for erasure; negative when it has passed";
            let left = seconds(deadline) - seconds(seen.at_ms);
            self.gauge("erasure_nearest_deadline", help, Some(&Unit::Seconds), left)?;
        }
        self.gauge("commands_waiting", "Commands that wait for their nodes", None, seen.commands as f64)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
        let family = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        ConstGauge::new(value).encode(family)
    }

    fn gauges<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = (Labels<'a, N>, f64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        series
            .into_iter()
            .try_for_each(|(labels, value)| ConstGauge::new(value).encode(family.encode_family(&labels)?))
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
