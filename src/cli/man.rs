//! `emm man`: what `--help` says, as pages of the manual.

use super::{Common, say, say_json};
use crate::error::{Exit, OrExit as _};
use crate::files::{check_output, write_bytes};
use anyhow::Result;
use clap::Command;
use clap_mangen::Man;
use std::fs;
use std::path::PathBuf;

/// Print the program's page of the manual, or write those of all commands into a folder
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  emm man | man -l -
  emm man ~/.local/share/man/man1; man emm-sweep-run")]
pub struct Args {
    /// Folder for a page of each command, made where it is not there
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Replace pages that exist
    #[arg(long)]
    force: bool,
}

/// Prints a page, or writes all, of the whole of `command`.
///
/// # Errors
/// Usage: a page that is there. Other: a folder that cannot be made.
pub fn run(args: Args, command: Command, common: &Common) -> Result<()> {
    // What `help` lists every page has.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let Some(dir) = args.dir else {
        let (_, page) = page(command)?;
        match common.json {
            true => say_json!({"page": page}),
            false => say!("{}", page.trim_end()),
        }
        return Ok(());
    };
    let mut pages = Vec::new();
    all_pages(command, &mut pages)?;
    let pages = pages.into_iter().map(|(name, page)| (dir.join(name), page));
    let pages: Vec<(PathBuf, String)> = pages.collect();
    fs::create_dir_all(&dir)
        .or_exit(Exit::Other, || format!("DIR: {}: cannot create", dir.display()))?;
    pages.iter().try_for_each(|(path, _)| check_output(path, args.force))?;
    for (path, page) in &pages {
        write_bytes(path, args.force, page)?;
    }
    match common.json {
        true => {
            let paths: Vec<String> = pages.iter().map(|(p, _)| p.display().to_string()).collect();
            say_json!({"pages": paths});
        }
        false => say!("{} pages in {}", pages.len(), dir.display()),
    }
    Ok(())
}

/// The file's name and the text of a command's page.
fn page(command: Command) -> Result<(String, String)> {
    let page = Man::new(command);
    let mut text = Vec::new();
    page.render(&mut text)?;
    let (file, text) = (page.get_filename(), String::from_utf8(text)?);
    // An empty date is left out there, which moves what stands behind it to its place.
    let title = format!(
        ".TH {} 1 \"\" \"emm {}\" \"User Commands\"",
        file.trim_end_matches(".1"),
        env!("CARGO_PKG_VERSION")
    );
    let line = |line: &str| if line.starts_with(".TH ") { title.clone() } else { line.into() };
    let text = text.lines().map(line).collect::<Vec<String>>().join("\n") + "\n";
    // Two breaks around an empty line are one space to formatters, which wonder at it.
    Ok((file, text.replace(".br\n\n.br\n", ".sp\n")))
}

/// The pages of a command and of all below it.
fn all_pages(command: Command, pages: &mut Vec<(String, String)>) -> Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        all_pages(below.clone(), pages)?;
    }
    pages.push(page(command)?);
    Ok(())
}
