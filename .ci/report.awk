# report.awk shortens the output of go test -v, and of vmrun -batch with -v test
# binaries, to one line per package; of a package that failed it prints what the
# tests wrote that did not pass. At the end it names what failed and what was
# skipped. Variables:
#   module=PATH    prefix of the packages' names in a batch
#   root=DIR       the folder of the module, for the same purpose
#   strict=1       a skipped test, or none at all, is a failure
#   live=1         print each test as it ends that failed or took a second
#   passed=FILE    write there each package and test that passed whole, with no part skipped

# What the compiler and vet say comes at any time, and belongs to no test.
/^# / { building = 1 }
/^(=== |--- |ok  \t|FAIL|\?   \t|PASS)/ { building = 0 }
building { print; fflush(); next }

/^=== vmrun / { forget(); next }
/^--- vmrun .*: exit code [0-9]+ after / {
  name = $3
  sub(/:$/, "", name)
  if (index(name, root) == 1) name = module substr(name, length(root) + 1)
  failed = $0 !~ /: exit code 0 after /
  finish((failed ? "FAIL" : "ok  ") "\t" name "\t" seconds($0) "s (vm)", failed)
  next
}
/^ok  \t/ { finish($0, 0); next }
/^\?   \t/ { forget(); next }
/^FAIL\t/ { finish($0, 1); next }

/^=== (RUN|PAUSE|CONT|NAME)/ {
  if ($2 == "RUN") ran++
  test = top($3)
  next
}
/^ *--- (PASS|FAIL|SKIP): / {
  if (live && /^---/ && !/^--- PASS.*\(0\.[0-9]+s\)$/) { print "   " $0; fflush() }
  if (/^---/) result[$3] = $2
  if ($2 == "FAIL:") failures[++failed_tests] = $3
  if ($2 == "SKIP:") { partly[top($3)] = 1; skips++; skipped[++total] = $3 "  " reason(previous) }
  if ($2 == "PASS:") next
  test = top($3)
}
{
  buffer[n] = $0
  owner[n++] = test
  if (/[^ ]/) previous = $0
}

function top(name) { sub(/\/.*/, "", name); return name }
function reason(line) { sub(/^[ \t]*[A-Za-z0-9_]+\.go:[0-9]+: /, "", line); gsub(/[ \t]+/, " ", line); return line }
function seconds(text) { sub(/^.* after /, "", text); sub(/ s$/, "", text); return text }
function forget(    k) {
  n = skips = 0
  test = ""
  for (k in result) delete result[k]
  for (k in partly) delete partly[k]
}
function flush_failed(    i) {
  for (i = 0; i < n; i++)
    if (result[owner[i]] != "PASS:" && result[owner[i]] != "SKIP:" && buffer[i] !~ /^(PASS|FAIL)$/) print buffer[i]
}
function finish(line, failed,    note, field, k) {
  split(line, field, "\t")
  if (passed) for (k in result) if (result[k] == "PASS:" && !partly[k]) print field[2] "\t" k >passed
  if (failed) { flush_failed(); bad++ }
  if (skips) note = sprintf("  (%d skipped)", skips)
  print line note
  forget()
  fflush()
}

END {
  flush_failed()
  printf "%d tests, %d skipped, %d failed; %d packages failed\n", ran, total, failed_tests, bad
  for (i = 1; i <= failed_tests; i++) print "  failed: " failures[i]
  for (i = 1; i <= total; i++) print "  skipped: " skipped[i]
  if (strict && total) { print "FAIL: a test was skipped where everything must run"; exit 1 }
  if (strict && !ran) { print "FAIL: no test ran"; exit 1 }
  exit bad > 0
}
