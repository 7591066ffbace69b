//! How long jobs of a batch system may take: as Slurm writes it, and by what runs cost.

/// What `--time` asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Limit {
    /// As it was written.
    Given(String),
    /// By each run's cost, at most so many seconds.
    Auto(u64),
}

/// Limits by cost, in seconds: one array for each that is needed.
const CLASSES: [u64; 8] =
    [1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 16 * 3600, 2 * 86_400, 4 * 86_400];

/// The longest limit by cost where none is given; what needs longer is requeued and goes on.
const LONGEST_S: u64 = 86_400;

/// A job also has to begin: image, set, self-test.
const BEGIN_S: f64 = 300.0;

/// Reads a limit.
pub fn limit(text: &str) -> Result<Limit, String> {
    let wrong = || {
        format!(
            "{text:?} is no time such as 04:00:00 or 1-12:00:00, auto, or auto:08:00:00 for the longest"
        )
    };
    let checked = |time: &str| slurm_seconds(time).filter(|&s| s > 0).ok_or_else(wrong);
    match (text.strip_prefix("auto"), text.strip_prefix("auto:")) {
        (Some(""), _) => Ok(Limit::Auto(LONGEST_S)),
        (_, Some(longest)) => checked(longest).map(Limit::Auto),
        _ => checked(text).map(|_| Limit::Given(text.into())),
    }
}

/// Seconds of a time as `sbatch` takes it: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S.
fn slurm_seconds(text: &str) -> Option<u64> {
    let number = |part: &str| {
        let digits =
            !part.is_empty() && part.len() <= 6 && part.chars().all(|c| c.is_ascii_digit());
        part.parse::<u64>().ok().filter(|_| digits)
    };
    let parts = |text: &str| text.split(':').map(number).collect::<Option<Vec<u64>>>();
    let Some((days, rest)) = text.split_once('-') else {
        return match parts(text)?[..] {
            [m] => Some(60 * m),
            [m, s] => Some(60 * m + s),
            [h, m, s] => Some(3600 * h + 60 * m + s),
            _ => None,
        };
    };
    let hours = match parts(rest)?[..] {
        [h] => 3600 * h,
        [h, m] => 3600 * h + 60 * m,
        [h, m, s] => 3600 * h + 60 * m + s,
        _ => return None,
    };
    Some(86_400 * number(days)? + hours)
}

/// A limit as Slurm writes it.
pub fn written(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let clock = format!("{hours:02}:{minutes:02}:{:02}", seconds % 60);
    if days > 0 { format!("{days}-{clock}") } else { clock }
}

/// The limit of a run that is expected to take so many seconds: room for `margin` times that, at most `longest_s`.
pub fn class(expected_s: f64, margin: f64, longest_s: u64) -> u64 {
    let needed = expected_s * margin + BEGIN_S;
    let fits = CLASSES.into_iter().find(|&class| class as f64 >= needed);
    fits.map_or(longest_s, |class| class.min(longest_s))
}

/// Numbers as array indices: `0-3,7`.
pub fn ranges(numbers: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &n in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => ranges.push((n, n)),
        }
    }
    let one = |&(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    ranges.iter().map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_that_slurm_takes() {
        for (text, seconds) in [
            ("30", 1800),
            ("30:15", 1815),
            ("04:00:00", 4 * 3600),
            ("1-12", 36 * 3600),
            ("1-0:30", 86_400 + 1800),
            ("2-00:00:01", 172_801),
        ] {
            assert_eq!(slurm_seconds(text), Some(seconds), "{text}");
            assert_eq!(limit(text), Ok(Limit::Given(text.into())));
        }
        for wrong in [
            "", "soon", "1:2:3:4", "-5", "1-", "4h", "00:00:00", "auto:", "auto8", "é", "+1",
            "1-2-3",
        ] {
            assert!(limit(wrong).unwrap_err().contains("04:00:00"), "{wrong}");
        }
        assert_eq!(limit("auto:08:00:00"), Ok(Limit::Auto(8 * 3600)));
        assert_eq!(limit("auto"), Ok(Limit::Auto(86_400)));
        assert_eq!((written(1800), written(90_061)), ("00:30:00".into(), "1-01:01:01".into()));
        assert_eq!(
            [(100.0, 2.0), (1700.0, 1.0), (1e9, 1.0)].map(|(s, m)| class(s, m, 7200)),
            [1800, 3600, 7200]
        );
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }
}
