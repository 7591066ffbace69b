//! "Did you mean": the known name nearest to a misspelt one; and many names that share a reason.

/// The name among `known` that is nearest to `word`, if one is near at all.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bare = |s: &str| s.to_lowercase().replace(['_', ' '], "-");
    let word = bare(word);
    let far = |name: &str| distance(&word, &bare(name));
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

/// One line a reason: the name that it holds for, or how many and the first and last of them. Of (name, reason).
pub fn by_reason(all: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    for (name, why) in all {
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, names)) => names.push(name),
            None => reasons.push((why, vec![name])),
        }
    }
    let line = |(why, names): (String, Vec<String>)| match names.as_slice() {
        [first, between @ .., last] => {
            let to = if between.is_empty() { "and" } else { "to" };
            format!("{} cells ({first} {to} {last}): {why}", names.len())
        }
        _ => format!("{}: {why}", names.concat()),
    };
    reasons.into_iter().map(line).collect()
}

/// The fewest insertions, deletions, replacements and swaps of neighbours that make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && (a[i - 1], a[i - 2]) == (b[j - 2], b[j - 1]) {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        for (a, b, d) in [
            ("", "", 0),
            ("a", "", 1),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("abc", "bac", 1),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (d, d), "{a} {b}");
        }
    }

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
        assert_eq!(nearest("zebra", known), None);
        assert!(
            unknown("key", "zebra", known).ends_with("there are channels, weight_decay, epochs")
        );
    }
}
