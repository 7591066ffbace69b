//! What a user says of a set whose form leaves open how its pixels are to be read.

use std::str::FromStr;

/// How pixels that are not 8-bit grey or RGB become it; by default none is changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// JPEG and lossy WebP are taken.
    pub allow_lossy: bool,
    /// What shows through where alpha is below 255.
    pub background: Option<Colour>,
    /// 16 bits are rounded to 8.
    pub to_8_bit: bool,
    /// What black and white are in arrays of floating point numbers.
    pub range: Option<Range>,
}

/// An RGB colour: `white`, `black` or `#rrggbb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour(pub [u8; 3]);

impl FromStr for Colour {
    type Err = String;

    fn from_str(text: &str) -> Result<Colour, String> {
        let wrong = || format!("expected white, black or #rrggbb, found {text:?}");
        match text {
            "white" => Ok(Colour([255; 3])),
            "black" => Ok(Colour([0; 3])),
            _ => {
                let digits = text.strip_prefix('#').ok_or_else(wrong)?;
                let plain = digits.len() == 6 && digits.bytes().all(|d| d.is_ascii_hexdigit());
                let value = u32::from_str_radix(digits, 16).ok().filter(|_| plain);
                let [_, r, g, b] = value.ok_or_else(wrong)?.to_be_bytes();
                Ok(Colour([r, g, b]))
            }
        }
    }
}

/// What black and white are: `0,1` or `-1,1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    Unit,
    Signed,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Range, String> {
        match text.split(',').map(str::trim).collect::<Vec<_>>()[..] {
            ["0", "1"] => Ok(Range::Unit),
            ["-1", "1"] => Ok(Range::Signed),
            _ => Err(format!("expected 0,1 or -1,1, found {text:?}")),
        }
    }
}

impl Range {
    /// The values of black and white.
    pub fn ends(self) -> [f64; 2] {
        match self {
            Range::Unit => [0.0, 1.0],
            Range::Signed => [-1.0, 1.0],
        }
    }

    /// The byte nearest to a value of the range; `None` outside.
    pub fn byte(self, value: f64) -> Option<u8> {
        let [black, white] = self.ends();
        let inside = (black..=white).contains(&value);
        inside.then(|| (255.0 * (value - black) / (white - black)).round() as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_ranges_are_read() {
        let colour = |text: &str| text.parse::<Colour>().map(|c| c.0);
        assert_eq!(colour("white"), Ok([255; 3]));
        assert_eq!(colour("#01fF80"), Ok([1, 255, 128]));
        for wrong in ["red", "#fff", "#+1ff80", "#01ff8é", "01ff80", ""] {
            assert!(colour(wrong).is_err(), "{wrong}");
        }
        assert_eq!(["0,1", "-1, 1"].map(|r| r.parse()), [Ok(Range::Unit), Ok(Range::Signed)]);
        assert!(["0,2", "1,0", "0", "0,1,2"].iter().all(|r| r.parse::<Range>().is_err()));
    }

    #[test]
    fn bytes_come_back_from_their_floats() {
        for byte in 0..=255_u8 {
            let unit = f64::from(byte) / 255.0;
            assert_eq!(Range::Unit.byte(f64::from(unit as f32)), Some(byte));
            assert_eq!(Range::Signed.byte(2.0 * unit - 1.0), Some(byte));
        }
        assert_eq!([-0.1, 1.1, f64::NAN].map(|v| Range::Unit.byte(v)), [None; 3]);
        assert_eq!(Range::Signed.byte(-1.01), None);
    }
}
