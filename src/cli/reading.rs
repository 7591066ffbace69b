//! How the images of a set are read: flags of every command that opens one.

use crate::data::options::{Colour, Options, Range};

/// Flags of every command that reads images
#[derive(clap::Args, Debug, Clone, Default)]
pub struct ReadingFlags {
    /// Take JPEG and lossy WebP too, whose pixels differ from the original's
    #[arg(long, global = true, help_heading = "Reading images")]
    pub allow_lossy: bool,
    /// What shows through where images are transparent; without it those are refused
    #[arg(
        long,
        global = true,
        value_name = "white|black|#rrggbb",
        help_heading = "Reading images"
    )]
    pub background: Option<Colour>,
    /// Round images of 16 bits to 8; without it they are refused
    #[arg(long = "to-8-bit", global = true, help_heading = "Reading images")]
    pub to_8_bit: bool,
    /// What black and white are in arrays of floating point numbers; without it those are refused
    #[arg(
        long,
        global = true,
        value_name = "0,1|-1,1",
        allow_hyphen_values = true,
        help_heading = "Reading images"
    )]
    pub range: Option<Range>,
}

impl ReadingFlags {
    /// As readers take them.
    pub fn options(&self) -> Options {
        let &ReadingFlags { allow_lossy, background, to_8_bit, range } = self;
        Options { allow_lossy, background, to_8_bit, range }
    }

    /// The flags as a shell takes them, each with a space before it.
    pub fn again(&self) -> String {
        let mut flags = String::new();
        if self.allow_lossy {
            flags += " --allow-lossy";
        }
        if let Some(Colour([r, g, b])) = self.background {
            flags += &format!(" --background '#{r:02x}{g:02x}{b:02x}'");
        }
        if self.to_8_bit {
            flags += " --to-8-bit";
        }
        if let Some(range) = self.range {
            let [black, white] = range.ends();
            flags += &format!(" --range={black},{white}");
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, Command, FromArgMatches as _};

    #[test]
    fn a_command_says_its_flags_again() {
        let command = ReadingFlags::augment_args(Command::new("emm"));
        let read = |line: &str| {
            let matches = command.clone().get_matches_from(line.split_whitespace());
            ReadingFlags::from_arg_matches(&matches).unwrap()
        };
        let line = "emm --allow-lossy --background #ffffff --to-8-bit --range -1,1";
        let again = read(line).again();
        assert_eq!(again, " --allow-lossy --background '#ffffff' --to-8-bit --range=-1,1");
        assert_eq!(
            read(&format!("emm{}", again.replace('\'', ""))).options(),
            read(line).options()
        );
        assert_eq!(read("emm").again(), "");
    }
}
