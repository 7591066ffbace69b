//! Completions, tried in the shells that are there, and pages of the manual.

use crate::support::{Ended, emm, emm_in, say};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a shell on a script after the completions of that shell were written to `emm.SHELL`; `None` where it is not there.
fn shell(shell: &str, dir: &Path, script: &str) -> Option<String> {
    let there = Command::new(shell).arg("--version").stdin(Stdio::null()).output();
    if !there.is_ok_and(|out| out.status.success()) {
        say(&format!("completions: no {shell} here: skipped"));
        return None;
    }
    fs::write(dir.join(format!("emm.{shell}")), emm(["completions", shell]).ok()).unwrap();
    fs::write(dir.join("script"), script).unwrap();
    let folder = Path::new(env!("CARGO_BIN_EXE_emm")).parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(shell);
    let ended = Ended::of(
        command
            .arg("script")
            .current_dir(dir)
            .env("PATH", path)
            .env("HOME", dir)
            .stdin(Stdio::null()),
    );
    assert_eq!(ended.stderr, "", "{shell}");
    Some(ended.ok())
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"
        source ./emm.bash
        ask() {
            COMP_WORDS=(emm "$@"); COMP_CWORD=$#; COMPREPLY=()
            local cur="${@: -1}" prev="emm"
            [ $# -gt 1 ] && prev="${@: -2:1}"
            "$(complete -p emm | sed 's/.*-F \([^ ]*\) .*/\1/')" emm "$cur" "$prev"
            echo "${COMPREPLY[@]}"
        }
        ask tra
        ask sweep st
        ask train --tens
        ask train --keep ""
        ask sweep run --only
    "#;
    let Some(said) = shell("bash", dir.path(), script) else { return };
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines, ["train", "status", "--tensorboard", "best,last all", "--only"]);
}

#[test]
fn fish_completes_commands_and_flags() {
    let dir = tempfile::tempdir().unwrap();
    let script = "source ./emm.fish\ncomplete -C 'emm tra'\ncomplete -C 'emm sweep st'\ncomplete -C 'emm train --tens'\n";
    let Some(said) = shell("fish", dir.path(), script) else { return };
    let words: Vec<&str> = said.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(words, ["train", "status", "--tensorboard"], "{said}");
}

#[test]
fn zsh_completes_commands_and_flags() {
    let dir = tempfile::tempdir().unwrap();
    // A shell behind a terminal of its own is given keys, and what it makes of the line is waited for.
    let script = r#"
        zmodload zsh/zpty
        zpty -b inner "TERM=dumb zsh -f -i"
        # Gives the inner shell some keys, and says what it wrote as soon as that holds a text; nothing after ten seconds.
        ask() {
            local said="" more
            zpty -w -n inner "$1"
            for try in {1..100}; do
                while zpty -r inner more 2>/dev/null; do said+=$more; done
                if [[ $said == *"$2"* ]]; then print -r -- "$2"; return; fi
                sleep 0.1
            done
        }
        ask $'autoload -U compinit && compinit -u -D && source ./emm.zsh && echo R\'\'EADY\n' READY
        ask $'emm tra\t' "emm train "
        ask $'\x15emm sweep stat\t' "emm sweep status "
        ask $'\x15emm train --tensorb\t' "emm train --tensorboard"
        zpty -d inner
    "#;
    let Some(said) = shell("zsh", dir.path(), script) else { return };
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines, ["READY", "emm train ", "emm sweep status ", "emm train --tensorboard"]);
}

#[test]
fn every_shell_has_a_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = emm(["completions", shell]).ok();
        assert!(script.contains("tensorboard") && script.contains("run-one"), "{shell}");
        assert_eq!(
            emm(["completions", shell, "--json"]).json()["script"].as_str().unwrap().trim_end(),
            script.trim_end()
        );
    }
    emm(["completions", "csh"]).refused(2, "SHELL: ", "bash");
}

/// Every command, as its help lists them.
fn commands() -> Vec<String> {
    let below = |words: &[&str]| -> Vec<String> {
        let help = emm(words.iter().copied().chain(["--help"])).ok();
        let Some((_, list)) = help.split_once("Commands:\n") else { return Vec::new() };
        let lines = list.lines().take_while(|line| !line.is_empty());
        // Continued lines stand further in.
        let names = lines
            .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
            .map(|l| l.split_whitespace().next().unwrap());
        names.filter(|name| *name != "help").map(String::from).collect()
    };
    let mut all = Vec::new();
    for command in below(&[]) {
        all.extend(below(&[&command]).iter().map(|sub| format!("{command}-{sub}")));
        all.push(command);
    }
    all
}

#[test]
fn each_command_has_a_page_that_formatters_take_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let commands = commands();
    assert!(commands.len() > 35 && commands.contains(&"sweep-run-one".into()), "{commands:?}");
    emm_in(dir, ["man", "man1"]).ok();
    assert_eq!(fs::read_dir(dir.join("man1")).unwrap().count(), commands.len() + 1);
    let first = emm(["man"]).ok();
    assert_eq!(fs::read_to_string(dir.join("man1/emm.1")).unwrap().trim_end(), first.trim_end());
    for command in &commands {
        let page = fs::read_to_string(dir.join(format!("man1/emm-{command}.1"))).unwrap();
        let said = page.replace('\\', "");
        assert!(
            said.contains(".SH SYNOPSIS") && said.contains(&format!("emm-{command}")),
            "{command}"
        );
        if !command.contains('-') {
            assert!(
                first.replace('\\', "").contains(&format!("emm-{command}(1)")),
                "{command} on emm.1"
            );
        }
    }
    emm_in(dir, ["man", "man1"]).refused(2, "man1/emm-", "--force");
    emm_in(dir, ["man", "man1", "--force"]).ok();
    let pages = fs::read_dir(dir.join("man1")).unwrap().map(|page| page.unwrap().path());
    let pages: Vec<_> = pages.collect();
    for (formatter, flags) in [
        ("groff", &["-ww", "-man", "-Tutf8", "-z", "-K", "utf8"][..]),
        ("mandoc", &["-Tlint", "-Wwarning"]),
    ] {
        if Command::new(formatter).arg("--version").stdin(Stdio::null()).output().is_err() {
            say(&format!("pages of the manual: no {formatter} here: skipped"));
            continue;
        }
        let ended =
            Ended::of(Command::new(formatter).args(flags).args(&pages).stdin(Stdio::null()));
        let said = ended.stdout + &ended.stderr;
        // Pages are of a version, which they name, not of a day.
        let said: Vec<&str> = said.lines().filter(|line| !line.contains("missing date")).collect();
        assert!(said.is_empty(), "{formatter}: {}", said.join("\n"));
    }
}
