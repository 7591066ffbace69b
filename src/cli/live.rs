//! A text that is drawn anew on a terminal as long as something changes.

use super::say;
use anyhow::Result;
use console::Term;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::time::Duration;

/// Between two drawings.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is drawn, and whether nothing will change any more.
pub struct Drawn {
    pub text: String,
    pub over: bool,
}

/// Draws every two seconds until nothing changes any more; once where stdout is no terminal, or if that is asked.
///
/// # Errors
/// Those of `draw`.
pub fn live(once: bool, draw: &mut dyn FnMut() -> Result<Drawn>) -> Result<()> {
    let mut drawn = draw()?;
    if !once && stdout().is_terminal() {
        let mut above = 0;
        while !drawn.over {
            let (rows, columns) = Term::stdout().size();
            let text = fitting(&drawn.text, rows as usize, columns as usize);
            if over_write(above, &text).is_err() {
                return Ok(());
            }
            above = text.lines().count();
            std::thread::sleep(INTERVAL);
            drawn = draw()?;
        }
        let _ = over_write(above, "");
    }
    say!("{}", drawn.text.trim_end());
    Ok(())
}

/// Writes a text over the last `above` lines, at once.
fn over_write(above: usize, text: &str) -> std::io::Result<()> {
    let up = if above > 0 { format!("\x1b[{above}A") } else { String::new() };
    stdout().write_all(format!("{up}\r\x1b[J{text}").as_bytes())?;
    stdout().flush()
}

/// What of a text a terminal of so many rows and columns shows without moving it.
fn fitting(text: &str, rows: usize, columns: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    let room = rows.saturating_sub(1).max(1);
    let shown = if all.len() <= room { all.len() } else { room - 1 };
    let mut lines: Vec<String> =
        all[..shown].iter().map(|line| line.chars().take(columns).collect()).collect();
    if shown < all.len() {
        let more = format!("… {} more lines (--once shows all)", all.len() - shown);
        lines.push(more.chars().take(columns).collect());
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_never_moves_a_terminal() {
        let text = "one long line\ntwo\nthree\nfour\n";
        assert_eq!(fitting(text, 5, 80), text);
        assert_eq!(fitting(text, 5, 5), "one l\ntwo\nthree\nfour\n");
        assert_eq!(fitting(text, 4, 80), "one long line\ntwo\n… 2 more lines (--once shows all)\n");
        for rows in 0..6 {
            assert!(fitting(text, rows, 80).lines().count() < rows.max(2));
        }
    }
}
