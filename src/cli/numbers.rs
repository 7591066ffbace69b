//! Numbers as people write them: 40k, 1.5m.

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
}
