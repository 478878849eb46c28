"""validate/peers/median_of_processes.py: one row of those that several processes measured."""
import csv
import os
import subprocess
import sys
import tempfile
import unittest

SCRIPT = os.path.join(os.path.dirname(__file__), "../../validate/peers/median_of_processes.py")
HEAD = "backend,seq_len,time_ms,p5_ms,p95_ms,samples,ci95_rel,error_norm,status,reason"


def merge(*files, gpus=None):
    """Exit code, what was said, and the rows, of files that each are a list of lines."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, lines in enumerate(files):
            paths.append(f"{folder}/{i}.csv")
            with open(paths[-1], "w") as file:
                file.write("\n".join(["# gpu = test", f"# gpus = {gpus[i] if gpus else 2}", "# how = eager", HEAD, *lines]))
        done = subprocess.run([sys.executable, SCRIPT, *paths, "-o", f"{folder}/out"], capture_output=True, text=True)
        rows = []
        if done.returncode == 0:
            with open(f"{folder}/out") as file:
                rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
        return done.returncode, done.stderr, rows


class MedianOfProcesses(unittest.TestCase):
    def test_the_time_is_the_median_of_those_of_the_processes_whatever_their_order(self):
        times = [4, 1, 2, 9, 3]
        code, said, rows = merge(*([f"cudnn,8,{t},{t},{t},50,0.01,0.002,ok,", f"flash,8,{2 * t},1,1,50,0.01,0.00{t},ok,"]
                                   for t in times))
        self.assertEqual((code, said), (0, ""))
        self.assertEqual([(r["backend"], r["time_ms"], r["p5_ms"], r["p95_ms"], r["samples"]) for r in rows],
                         [("cudnn", "3", "1.0", "9.0", "5"), ("flash", "6", "2.0", "18.0", "5")])
        self.assertEqual(rows[0]["processes_ms"], "4 1 2 9 3")
        self.assertEqual(rows[1]["error_norm"], "0.009")  # the largest

    def test_a_row_that_failed_once_is_failed(self):
        code, _, rows = merge(["cudnn,8,1,1,1,50,0.01,0.002,ok,"], ["cudnn,8,,,,,,,failed,no memory"])
        self.assertEqual((code, rows[0]["status"], rows[0]["reason"], rows[0]["time_ms"]), (0, "failed", "no memory", ""))

    def test_files_of_other_machines_or_rows_are_refused(self):
        row = "cudnn,8,1,1,1,50,0.01,0.002,ok,"
        self.assertIn("gpus = 4 (but 2 in", merge([row], [row], gpus=[2, 4])[1])
        self.assertIn("other rows than in", merge([row], [row, row.replace("8", "16")])[1])
        self.assertIn("two rows of", merge([row, row])[1])
        self.assertIn("no rows", merge([])[1])
        for files in ([[row], []], [[]]):
            self.assertEqual(merge(*files)[0], 2)


if __name__ == "__main__":
    unittest.main()
