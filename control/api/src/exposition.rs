//! The two texts that scrapers read: OpenMetrics 1.0, and Prometheus' own format 0.0.4, which `promtool` and
//! a bare `curl` get.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// By the `Accept` header: OpenMetrics for whoever names it (Prometheus does since 2.5).
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Out of an OpenMetrics text.
    pub fn of(self, text: String) -> String {
        match self {
            Self::OpenMetrics => text,
            Self::Prometheus => plain(&text),
        }
    }
}

/// In 0.0.4 the metadata of a counter names it with its `_total`, and there is neither UNIT nor EOF
/// (prometheus.io/docs/instrumenting/exposition_formats).
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    let mut line = |line: std::fmt::Arguments<'_>| {
        out.push_str(&line.to_string());
        out.push('\n');
    };
    for read in text.lines() {
        if let Some(rest) = read.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = read.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let total = if kind == "counter" { "_total" } else { "" };
            if let Some((_, words)) = help.take() {
                line(format_args!("# HELP {name}{total} {words}"));
            }
            line(format_args!("# TYPE {name}{total} {kind}"));
        } else if !read.starts_with('#') {
            line(format_args!("{read}"));
        }
    }
    out
}
