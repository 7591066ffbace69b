//! Files of the user's cache, which hold nothing that can't be found out again.

use super::{read_text, write_bytes};
use std::path::PathBuf;
use std::{env, fs};

/// `$XDG_CACHE_HOME/emm/<name>`, or below `~/.cache`.
pub fn cached(name: &str) -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("emm").join(name))
}

/// What a file of the cache holds; nothing where it cannot be read.
pub fn read_cache(name: &str) -> String {
    cached(name).and_then(|path| read_text(&path).ok().flatten()).unwrap_or_default()
}

/// Writes a file of the cache, if that can be written.
pub fn write_cache(name: &str, text: String) {
    let Some(path) = cached(name) else { return };
    let made = path.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok());
    let _ = made && write_bytes(&path, true, text).is_ok();
}
