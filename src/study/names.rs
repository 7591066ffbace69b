//! "Did you mean": the known name nearest to a misspelt one; and many names that share a reason.

use strsim::osa_distance;

/// The name among `known` that is nearest to `word`, if one is near at all.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bare = |s: &str| s.to_lowercase().replace(['_', ' '], "-");
    let word = bare(word);
    let far = |name: &str| osa_distance(&word, &bare(name));
    let best = known.into_iter().map(|name| (far(name), name)).min_by_key(|n| n.0)?;
    let near = best.0 <= 1 + word.chars().count().max(best.1.chars().count()) / 3;
    near.then_some(best.1)
}

/// `unknown WHAT "word"`, with the nearest known name or else all of them.
pub fn unknown<'a>(what: &str, word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, known.iter().copied()) {
        Some(name) => format!("unknown {what} {word:?}; did you mean {name:?}?"),
        None => format!("unknown {what} {word:?}; there are {}", known.join(", ")),
    }
}

/// Puts a value beside those of its key, a new key at the end.
pub fn put<K: PartialEq, V>(groups: &mut Vec<(K, Vec<V>)>, key: K, value: V) {
    match groups.iter_mut().find(|(known, _)| *known == key) {
        Some((_, group)) => group.push(value),
        None => groups.push((key, vec![value])),
    }
}

/// One line a reason: the name that it holds for, or how many and the first and last of them. Of (name, reason).
pub fn by_reason(all: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    all.into_iter().for_each(|(name, why)| put(&mut reasons, why, name));
    let line = |(why, names): (String, Vec<String>)| match names.as_slice() {
        [first, between @ .., last] => {
            let to = if between.is_empty() { "and" } else { "to" };
            format!("{} cells ({first} {to} {last}): {why}", names.len())
        }
        _ => format!("{}: {why}", names.concat()),
    };
    reasons.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_one_reason_share_a_line() {
        let of = |name: &str, why: &str| (name.to_string(), why.to_string());
        let all = [of("a", "small"), of("b", "wide"), of("c", "small"), of("d", "small")];
        assert_eq!(by_reason(all), ["3 cells (a to d): small", "b: wide"]);
        assert_eq!(by_reason([of("a", "w"), of("b", "w")]), ["2 cells (a and b): w"]);
    }

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let known = ["channels", "weight_decay", "epochs"];
        assert_eq!(nearest("chanels", known), Some("channels"));
        assert_eq!(nearest("weight-decay", known), Some("weight_decay"));
        // Neighbours that are swapped are one edit.
        assert_eq!(nearest("abc", ["bca", "bac"]), Some("bac"));
        assert_eq!(nearest("zebra", known), None);
        assert!(
            unknown("key", "zebra", known).ends_with("there are channels, weight_decay, epochs")
        );
    }
}
