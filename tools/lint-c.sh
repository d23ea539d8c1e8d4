#!/bin/bash
# Checks the C sources with one tool: lint-c.sh cppcheck | analyzer | tidy
set -euo pipefail

flags=(-std=gnu11 -D_GNU_SOURCE= -I csrc -I /usr/include/fuse3)
# What setup.py gives to the compiler.
defines=(-DECI_PYTHON='"python3"' -DECI_VERSION='"0"')
# Not the fuzz targets: they include the sources of csrc, which are looked at by themselves.
mapfile -t sources < <(git ls-files --cached --others --exclude-standard 'csrc/*.c' 'benchmarks/*.c' 'tests/*.c' \
    ':!tests/fuzz')
[ ${#sources[@]} -gt 0 ] || { echo "lint-c.sh: no C sources" >&2; exit 1; }

case "$1" in
    cppcheck)
        # Headers of the system are not read: cppcheck knows the C library by its own tables.
        # ctuuninitvar: takes a buffer for read that a function of ours fills with snprintf.
        cppcheck --quiet --error-exitcode=1 --std=c11 --language=c -D_GNU_SOURCE -D__x86_64__ "${defines[@]}" \
            -I csrc --enable=warning,performance,portability --inline-suppr \
            --suppress=missingIncludeSystem --suppress=ctuuninitvar "${sources[@]}"
        ;;
    analyzer)
        # -O2, because the analyzer follows inlined helpers and cleanup attributes only then.
        failed=0
        for source in "${sources[@]}"; do
            gcc "${flags[@]}" "${defines[@]}" -O2 -fanalyzer -Wall -Wextra -Werror \
                -c "$source" -o /dev/null || failed=1
        done
        exit "$failed"
        ;;
    tidy)
        # Not the test programs: they are clumsy on purpose.
        mapfile -t sources < <(printf '%s\n' "${sources[@]}" | grep -v ^tests/)
        # Each by itself: in a run of several, release 14 takes the va_list of later ones for unset.
        printf '%s\0' "${sources[@]}" | xargs -0 -I {} -P "$(nproc)" \
            clang-tidy --quiet --warnings-as-errors='*' {} -- "${flags[@]}" \
            "${defines[@]}" 2> >(grep -v ' warnings\? generated' >&2 || true)
        ;;
    *)
        echo "lint-c.sh: unknown tool $1" >&2
        exit 2
        ;;
esac
