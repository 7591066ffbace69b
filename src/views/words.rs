//! Words that several views share.

use crate::run::progress::duration;

/// What ↑ and a chart's open marks mean.
pub const RISING: &str = "still rising at the last evaluation; longer training would give more";
/// Marks such a ratio in tables.
pub const RISING_MARK: &str = "↑";

/// The line below a chart that has open marks.
pub fn open_marks() -> String {
    format!("open marks: {RISING}")
}

/// What is drawn around points that are no spread over seeds.
pub const BANDS: &str =
    "bands and bars: 95% sampling interval (Wilson); training seeds spread more";

/// A share of 0 to 1.
pub fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

/// Hours as people say them: 21s, 3m20s, 2.9 h, 8134 h; ? where they are not known.
pub fn describe_hours(hours: f64) -> String {
    match hours {
        h if h.is_nan() => "?".into(),
        h if h < 0.995 => duration(h * 3600.0),
        h if h < 9.95 => format!("{h:.1} h"),
        h => format!("{h:.0} h"),
    }
}
