import { useMediaQuery } from '../lib/media';
import { defineStore } from 'pinia';
import { computed, ref, watchEffect } from 'vue';

export type Choice = 'system' | 'light' | 'dark';

const KEPT = 'stormwire-theme';

/** Light or dark: the device's own choice, until a person makes another. */
export const useTheme = defineStore('theme', () => {
  const choice = ref<Choice>((localStorage.getItem(KEPT) as Choice | null) ?? 'system');
  const prefersDark = useMediaQuery('(prefers-color-scheme: dark)');
  const isDark = computed(() => (choice.value === 'system' ? prefersDark.value : choice.value === 'dark'));
  watchEffect(() => {
    document.documentElement.dataset['theme'] = isDark.value ? 'dark' : 'light';
    localStorage.setItem(KEPT, choice.value);
  });
  return { choice, isDark };
});
