//! Bars a day, as SVG.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 160.0;
/// Room for the scale at the left.
const LEFT: f64 = 80.0;
/// Room for the days below.
const BELOW: f64 = 20.0;
/// A bar is never wider, so that one day is no wall.
const WIDEST: f64 = 48.0;

/// One day: its name, and the parts of its bar from the bottom up.
pub struct Bar {
    pub day: String,
    pub parts: Vec<f64>,
}

/// Stacked bars; part N has the class `part-N`. `unit` follows the scale's number; `title` is read out aloud.
pub fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    let highest =
        bars.iter().map(|bar| bar.parts.iter().sum::<f64>()).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let room = (WIDTH - LEFT) / bars.len().max(1) as f64;
    let width = (room * 0.8).min(WIDEST);
    let mut svg = format!(
        "<svg role=\"img\" aria-label=\"{title}\" viewBox=\"0 0 {WIDTH} {}\"><text x=\"{}\" y=\"12\" class=\"scale\">{highest:.0} {unit}</text>\
         <text x=\"{}\" y=\"{HEIGHT}\" class=\"scale\">0</text>",
        HEIGHT + BELOW,
        LEFT - 6.0,
        LEFT - 6.0
    );
    for (index, bar) in bars.iter().enumerate() {
        let x = LEFT + room * index as f64;
        let mut y = HEIGHT;
        for (part, value) in bar.parts.iter().enumerate() {
            let height = value / highest * (HEIGHT - 4.0);
            y -= height;
            // Writing to a String cannot fail.
            let _ = write!(
                svg,
                "<rect class=\"part-{part}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{}: {value:.1} {unit}</title></rect>",
                bar.day
            );
        }
    }
    for bar in [bars.first(), bars.last().filter(|_| bars.len() > 1)].into_iter().flatten() {
        let index = bars.iter().position(|one| one.day == bar.day).unwrap_or(0);
        let (x, anchor) = if index == 0 { (LEFT, "start") } else { (WIDTH, "end") };
        let _ = write!(
            svg,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            HEIGHT + 15.0,
            bar.day
        );
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_high_as_its_parts() {
        let day = |day: &str, parts: &[f64]| Bar { day: day.into(), parts: parts.into() };
        let svg = bars("Hours", "h", &[day("d1", &[6.0, 6.0]), day("d2", &[0.0, 24.0])]);
        assert_eq!(svg.matches("<rect").count(), 4);
        assert!(svg.contains("height=\"156.0\"><title>d2: 24.0 h"), "{svg}");
        assert!(svg.contains("24 h</text>") && svg.contains(">d1</text>") && svg.contains(">d2</text>"));
        assert!(!bars("Hours", "h", &[]).contains("NaN"));
    }
}
