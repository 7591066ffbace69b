//! Amounts of memory and of files as people read them.

use std::fmt;

/// Bytes, shown as `512 bytes`, `1.5 KiB`, `256 MiB`: of more than 1,024 three digits in powers of 1,024. Numbers for
/// programs (`--json`) stay whole. Showing it allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1024 {
            return write!(f, "{} bytes", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 999.5 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let (mut places, mut scale) = match value {
            v if v < 9.995 => (2, 100),
            v if v < 99.95 => (1, 10),
            _ => (0, 1),
        };
        let mut digits = (value * scale as f64).round() as u64;
        while places > 0 && digits.is_multiple_of(10) {
            (digits, places, scale) = (digits / 10, places - 1, scale / 10);
        }
        match places {
            0 => write!(f, "{digits} {}", UNITS[unit]),
            _ => write!(f, "{}.{:0places$} {}", digits / scale, digits % scale, UNITS[unit]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, said) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (1034, "1.01 KiB"),
            (10_342, "10.1 KiB"),
            (256 << 20, "256 MiB"),
            (1_072_000_000, "1 GiB"),
            (1 << 30, "1 GiB"),
            ((1 << 30) + (1 << 29) + (1 << 25), "1.53 GiB"),
            (4 << 40, "4 TiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), said, "{bytes}");
        }
    }
}
