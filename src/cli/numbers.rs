//! Numbers as people write them: 40k, 1.5m, lists and ranges.

/// A count: `1000`, `40k`, `1.5m`.
pub fn count(text: &str) -> Result<usize, String> {
    let value = amount(text)?;
    match value.fract() == 0.0 && value < 9e15 {
        true => Ok(value as usize),
        false => Err(format!("{text} is not a whole number")),
    }
}

/// A non-negative number, whole or not: `2.5`, `40k`, `1.5m`.
pub fn amount(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is not a number such as 1000, 40k or 1.5m");
    let (digits, scale) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    let value = digits.parse::<f64>().map_err(|_| wrong())? * scale;
    // 1.1k is 1100, not 1100.0000000000002.
    let whole = value.round();
    let value = if (value - whole).abs() < 1e-9 * value.abs() { whole } else { value };
    match value.is_finite() && value >= 0.0 {
        true => Ok(value),
        false => Err(wrong()),
    }
}

/// A switch as EDM's command line takes it.
pub fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// Seeds: `0-63`, `1,5,9`, or both mixed; inclusive ranges.
pub fn seeds(text: &str) -> Result<Vec<u64>, String> {
    const MOST: u64 = 100_000_000;
    let wrong = || format!("{text:?} is not a list of seeds such as 0-63 or 1,5,9");
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u64 = first.trim().parse().map_err(|_| wrong())?;
        let last: u64 = last.trim().parse().map_err(|_| wrong())?;
        if last < first {
            return Err(wrong());
        }
        if last - first >= MOST {
            return Err(format!("{text:?} asks for more than {MOST} seeds"));
        }
        all.extend(first..=last);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!(count("40k"), Ok(40_000));
        assert_eq!(count("1.1k"), Ok(1100));
        assert_eq!(count("1.5M"), Ok(1_500_000));
        for bad in ["", "k", "-1", "1.5", "nan", "inf", "1e400", "4x", "é"] {
            assert!(count(bad).is_err(), "{bad}");
        }
        assert_eq!(amount("2.5"), Ok(2.5));
    }

    #[test]
    fn lists_of_seeds() {
        assert_eq!(seeds("0-3,9"), Ok(vec![0, 1, 2, 3, 9]));
        assert_eq!(seeds("7"), Ok(vec![7]));
        for bad in ["", "-", "3-1", "1,,2", "a", "-5", "0-99999999999"] {
            assert!(seeds(bad).is_err(), "{bad}");
        }
    }
}
