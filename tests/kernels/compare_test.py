"""validate/measured/compare.py: what counts as the same row, and what counts as agreement."""
import os
import subprocess
import sys
import tempfile
import unittest

COMPARE = os.path.join(os.path.dirname(__file__), "../../validate/measured/compare.py")
HEAD = "kernel,n,bytes,time_us,samples,sm_clock_mhz,status"


def compare(first, second, *options, name="merge", head=HEAD):
    """Exit code and last line of comparing two files with these lines."""
    with tempfile.TemporaryDirectory() as folder:
        for run, lines in (("first", first), ("second", second)):
            os.mkdir(f"{folder}/{run}")
            with open(f"{folder}/{run}/{name}.csv", "w") as file:
                file.write("".join(line + "\n" for line in ["# gpu = test", head, *lines]))
        done = subprocess.run([sys.executable, COMPARE, f"{folder}/first", f"{folder}/second", *options],
                              capture_output=True, text=True)
        return done.returncode, (done.stdout or done.stderr).strip().splitlines()[-1]


class Compare(unittest.TestCase):
    def test_a_row_agrees_up_to_the_tolerance_and_not_beyond(self):
        for time, agrees in (("100", 1), ("101.9", 1), ("98.1", 1), ("102.1", 0), ("97.9", 0)):
            code, line = compare(["a,1,8,100,20,1500,ok"], [f"a,1,8,{time},99,1400,ok"])
            self.assertTrue(line.startswith(f"{agrees} of 1 rows"), line)
            self.assertEqual(code, 1 - agrees)

    def test_the_share_asked_for_decides_the_exit_code(self):
        first = [f"a,{n},8,100,20,1500,ok" for n in range(20)]
        second = first[:-1] + ["a,19,8,200,20,1500,ok"]
        self.assertEqual(compare(first, second)[0], 0)  # 19 of 20 = 95 %
        self.assertEqual(compare(first, second, "--share", "0.96")[0], 1)
        self.assertEqual(compare(first, second, "--tolerance", "1", "--share", "1")[0], 0)

    def test_failed_rows_and_rows_of_one_file_do_not_count(self):
        first = ["a,1,8,100,20,1500,ok", "a,2,8,100,20,1500,failed", "a,3,8,100,20,1500,ok"]
        second = ["a,1,8,100,20,1500,ok", "a,2,8,500,20,1500,ok", "b,3,8,500,20,1500,ok"]
        self.assertTrue(compare(first, second)[1].startswith("1 of 1 rows"))

    def test_work_is_matched_however_many_digits_it_is_written_with(self):
        line = compare(["a,1,1.04858e+06,100,20,1500,ok"], ["a,1,1048576,100,20,1500,ok"])[1]
        self.assertTrue(line.startswith("1 of 1 rows"), line)

    def test_what_a_row_found_beside_its_times_does_not_say_which_row_it_is(self):
        head = ("kernel,mechanism,compute_alone_us,compute_alone_p5_us,compute_alone_p95_us,transfer_overlapped_us,"
                "transfer_overlapped_p5_us,samples,transfer_samples,status")
        line = compare(["a,b,100,99,101,50,49,20,21,ok"], ["a,b,101,98,103,50.5,48,22,30,ok"], name="overlap", head=head)[1]
        self.assertTrue(line.startswith("1 of 1 rows"), line)

    def test_power_rows_are_left_out(self):
        code, line = compare(["a,1,8,100,20,1500,ok"], ["a,1,8,100,20,1500,ok"], name="power")
        self.assertEqual(code, 1)
        self.assertIn("no row in common", line)


if __name__ == "__main__":
    unittest.main()
