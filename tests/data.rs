//! Data sets: formats, subsets, resampling, and every way in which files can be bad.

use emm::data::Dataset;
use tempfile::tempdir;

#[test]
fn a_saved_set_reads_back_and_its_bytes_depend_on_the_set_alone() {
    let dir = tempdir().unwrap();
    let digits = Dataset::digits();
    let (a, b) = (dir.path().join("a.zip"), dir.path().join("b.zip"));
    digits.save(&a, false).unwrap();
    digits.save(&b, false).unwrap();
    assert_eq!(Dataset::open(&a).unwrap(), digits);
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    assert_eq!(digits.len(), 1797);
    assert_eq!(digits.label_dim(), 10);
    let unlabelled = Dataset { labels: None, ..digits };
    assert!(unlabelled.save(&a, false).is_err(), "replaced a file without being forced to");
    unlabelled.save(&a, true).unwrap();
    assert_eq!(Dataset::open(&a).unwrap(), unlabelled);
}
