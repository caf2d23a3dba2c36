//! What a request cost when somebody last said that this is what it should cost.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

/// How much more than the saved figure is still the same.
const TOLERANCE: f64 = 0.05;

/// Figures by name.
pub(crate) type Figures = BTreeMap<String, f64>;

/// How one figure compares with the saved one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing was saved.
    New,
    /// Not above the tolerance; the change as a fraction.
    Kept(f64),
    /// More than that above.
    Worse(f64),
}

/// Compares one figure.
pub(crate) fn judge(measured: f64, saved: Option<f64>) -> Verdict {
    let Some(saved) = saved else { return Verdict::New };
    let change = measured / saved - 1.0;
    if change > TOLERANCE { Verdict::Worse(change) } else { Verdict::Kept(change) }
}

/// The saved figures; none if there is no file.
pub(crate) fn read(path: &Path) -> Result<Figures, String> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|why| format!("{}: {why}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Figures::new()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Saves figures; those that were not measured this time stay.
pub(crate) fn save(path: &Path, measured: &Figures) -> Result<(), String> {
    let mut all = read(path)?;
    all.extend(measured.iter().map(|(name, figure)| (name.clone(), *figure)));
    let text = format!("{:#}\n", json!(all));
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn parse(text: &str) -> Result<Figures, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let object = value.as_object().ok_or("not an object")?;
    let figures = object.iter().map(|(name, figure)| match figure.as_f64() {
        Some(number) if number > 0.0 => Ok((name.clone(), number)),
        _ => Err(format!("{name} is not a positive number: {figure}")),
    });
    figures.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_percent_more_is_the_limit() {
        assert!(matches!(judge(104.9, Some(100.0)), Verdict::Kept(_)));
        assert!(matches!(judge(105.1, Some(100.0)), Verdict::Worse(_)));
        assert!(matches!(judge(50.0, Some(100.0)), Verdict::Kept(change) if change < -0.49));
        assert_eq!(judge(50.0, None), Verdict::New);
    }

    #[test]
    fn what_was_not_measured_this_time_stays_saved() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("baseline.json");
        assert_eq!(read(&path), Ok(Figures::new()));
        save(&path, &Figures::from([("a".to_owned(), 1.5), ("b".to_owned(), 2.0)])).unwrap();
        save(&path, &Figures::from([("b".to_owned(), 3.0)])).unwrap();
        let expected = Figures::from([("a".to_owned(), 1.5), ("b".to_owned(), 3.0)]);
        assert_eq!(read(&path), Ok(expected));
    }

    #[test]
    fn a_baseline_that_makes_no_sense_is_refused() {
        assert!(parse(r#"{"a": 0}"#).unwrap_err().contains("a is not a positive"));
        assert!(parse("[1]").is_err());
    }
}
