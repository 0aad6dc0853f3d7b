//! The one thing that is read from callgrind's output: what a function and all it called cost.
//!
//! The format (callgrind's manual, "Callgrind Format Specification"), as far as it matters here:
//!
//! ```text
//! fn=(7) kami_bench::…::guarded_append      costs that follow are of this function; later only `fn=(7)`
//! 120 35                                    a line of source and its own cost
//! cfn=(9) memcpy                            a function it calls,
//! calls=32 0                                how often,
//! +4 4096                                   and what all these calls cost together
//! ```

/// Instructions in the function whose path ends in `::name`, with all it called.
pub fn inclusive(text: &str, name: &str) -> u64 {
    let suffix = format!("::{name}");
    let (mut id, mut within, mut total) = (None, false, 0);
    for line in text.lines() {
        // The name stands where the function comes up first, which may be where it is called.
        if let Some((function, called)) = line.split_once(')')
            && let Some(number) = function.strip_prefix("fn=(").or(function.strip_prefix("cfn=("))
        {
            if called.ends_with(&suffix) {
                id = Some(number);
            }
            if line.starts_with('f') {
                within = id == Some(number);
            }
        } else if within && line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            total += line.rsplit(' ').next().and_then(|cost| cost.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_costs_what_it_does_and_what_it_calls() {
        let text = "events: Ir\n\nfn=(4) main\ncfn=(1) a::b::guarded_append\ncalls=2 9\n30 120\n\n\
                    fn=(1)\n10 5\n+1 7\ncfn=(2) memcpy\ncalls=3 20\n* 100\n\n\
                    fn=(2)\n20 100\n\nfn=(1)\n-3 8\n\nfn=(3) a::b::guarded_append::{closure#0}\n9 1000\n\
                    totals: 220\n";
        assert_eq!(inclusive(text, "guarded_append"), 5 + 7 + 100 + 8);
        assert_eq!(inclusive(text, "guarded_split"), 0);
    }
}
