//! One page that needs nothing else: no script, no font, no other file.

use dormouse_api::savings::{ServerSavings, Sums};
use jiff::tz::TimeZone;

use super::plot::{Bar, bars};
use super::{conclusions, gib, head, hours, moment};
use crate::worth::{Report, Terms};

const STYLE: &str = "\
:root{color-scheme:light dark;--awake:#c98a2b;--dozing:#6f8fbf;--deep:#2f4f8f}\
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}\
table{border-collapse:collapse;width:100%}th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid #8885}\
th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.2rem}dt{font-weight:600}dd{margin:0}\
svg{width:100%;font-size:11px;fill:currentColor}.scale{text-anchor:end}\
.hours .part-0{fill:var(--deep)}.hours .part-1{fill:var(--dozing)}.hours .part-2{fill:var(--awake)}\
.memory .part-0{fill:var(--deep)}\
.key span{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}\
.key .deep{background:var(--deep)}.key .dozing{background:var(--dozing)}.key .awake{background:var(--awake)}";

/// Conclusions, plots by day, and the table of servers.
pub fn html(report: &Report, terms: Terms, zone: &TimeZone) -> String {
    let title = format!("Savings of {}", escaped(&report.savings.node));
    let head = escaped(&head(report, zone));
    let mut list = String::new();
    for (name, value) in conclusions(report, terms) {
        list += &["<dt>", name, "</dt><dd>", &escaped(&value), "</dd>"].concat();
    }
    let hours = bars(
        "Hours in each stage, by day",
        "h",
        &days(report, |sums| vec![sums.deep_hours, sums.dozing_hours, sums.awake_hours + sums.waking_hours]),
    );
    let memory =
        bars("Memory handed back, by day", "GiB·h", &days(report, |sums| vec![sums.handed_back_gib_hours]));
    let rows: String = report.savings.servers.iter().map(row).collect();
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p>{head}</p>
<dl>{list}</dl>
<h2>Hours of all servers, by day</h2>
<p class="key"><span class="deep"></span>deep<span class="dozing"></span>dozing<span class="awake"></span>awake</p>
<div class="hours">{hours}</div>
<h2>Memory handed back, by day</h2>
<div class="memory">{memory}</div>
<h2>Servers</h2>
<table>
<thead><tr><th>Server<th>Profile<th>Awake<th>Dozing<th>Deep<th>Size<th>Handed back</tr></thead>
<tbody>
{rows}</tbody>
</table>
</body>
</html>
"#
    )
}

fn days(report: &Report, parts: impl Fn(&Sums) -> Vec<f64>) -> Vec<Bar> {
    let day = |at_ms| moment(at_ms, &TimeZone::UTC).split(' ').next().unwrap_or_default().to_owned();
    report.savings.days.iter().map(|one| Bar { day: day(one.start_at_ms), parts: parts(&one.sums) }).collect()
}

fn row(server: &ServerSavings) -> String {
    let sums = &server.sums;
    format!(
        "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{:.1} GiB·h</tr>\n",
        escaped(&server.name),
        escaped(&server.profile),
        hours(sums.awake_hours + sums.waking_hours),
        hours(sums.dozing_hours),
        hours(sums.deep_hours),
        gib(sums.size_gib_hours / sums.hours().max(f64::MIN_POSITIVE)),
        sums.handed_back_gib_hours
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worth::tests::savings;

    #[test]
    fn a_servers_name_is_no_markup() {
        let page = html(&Report::new(savings(), Terms::default()), Terms::default(), &TimeZone::UTC);
        assert!(page.contains("<td>a,&lt;b&gt;<td>luanti<td>66.0 h<td>6.0 h<td>144.0 h"), "{page}");
        assert!(!page.contains("<b>") && !page.contains("http"));
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("2026-11-09: 144.0 h"));
    }
}
