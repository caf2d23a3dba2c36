//! Whole numbers as people write them on command lines.

use std::ops::RangeInclusive;

/// Reads whole numbers of a range; what is refused is told with the range and an example.
pub fn whole_number<T>(
    range: RangeInclusive<T>,
    example: T,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: Copy + Into<u64> + TryFrom<u64> + Send + Sync + 'static,
{
    let (least, most, example) = ((*range.start()).into(), (*range.end()).into(), example.into());
    move |text| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return Err(format!(
                "{text:?} is not a whole number; use {least} to {most}, for example {example}"
            ));
        }
        // What is too long for a number is outside, too.
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        let number = number.and_then(|number: u64| T::try_from(number).ok());
        number.ok_or_else(|| format!("{text} is outside {least} to {most}, for example {example}"))
    }
}

/// Reads a port: 0 is a free one.
pub fn port(text: &str) -> Result<u16, String> {
    whole_number(0..=u16::MAX, 8080)(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_told_with_what_would_do() {
        let read = whole_number(1..=256u32, 10);
        assert_eq!((read("1"), read("256")), (Ok(1), Ok(256)));
        for bad in ["abc", "", "-1", "+1", "1.5", "1e3"] {
            let told = format!("{bad:?} is not a whole number; use 1 to 256, for example 10");
            assert_eq!(read(bad), Err(told));
        }
        for bad in ["0", "257", "99999999999999999999999"] {
            assert_eq!(read(bad), Err(format!("{bad} is outside 1 to 256, for example 10")));
        }
        assert_eq!((port("0"), port("65535")), (Ok(0), Ok(65535)));
        assert!(port("70000").unwrap_err().ends_with("for example 8080"));
    }
}
