use star_sim::campaign::Campaign;
#[test]
fn quick() {
    let c = Campaign::default();
    for seed in 0..200 {
        match c.run(seed) {
            Ok(s) => {
                if seed < 10 {
                    println!("{s:?}")
                }
            }
            Err(e) => println!("SEED {seed} {e}"),
        }
    }
}
